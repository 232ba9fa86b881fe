"""Checks of scenarios and plans that need more than one field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter

from engine.reading import MOST_MISTAKES
from flags.catalog import FLAGS, SALVAGE, did_you_mean
from flags.document import Mistake, Path
from sim.files.flag_values import FlagSource
from sim.files.fleet import MOST_SANDBOXES, Group, NodeSpec, sandbox_specs
from sim.files.metrics import MEASURES
from sim.files.strict import part
from sim.files.units import format_size
from sim.files.yaml import Document

_FLEET: TypeAdapter[tuple[Group, ...]] = TypeAdapter(Annotated[tuple[Group, ...], Field(strict=False)])
_NODE = TypeAdapter(NodeSpec)


def cross_checks(document: Document) -> list[Mistake]:
    """Mistakes that no single field shows: outages that the flag source cannot have, steps that do not fit the
    fleet."""
    if not isinstance(document.data, dict):
        return []
    checks = (_unserved_steps, _steps_of_a_dead_node, _canaries_without_bound)
    return [*(found for check in checks for found in check(document)), *_fleet_checks(document)]


def _fleet_checks(document: Document) -> list[Mistake]:
    fleet = part(_FLEET, document.data.get("fleet"))
    if not fleet:
        return []
    if (total := sum(group.count for group in fleet)) > MOST_SANDBOXES:  # before any of them is looked at
        message = f"the fleet has {total:,} sandboxes, at most {MOST_SANDBOXES:,} can be run; make its groups smaller"
        return [document.mistake(("fleet",), message)]
    found = [*_repeated_names(document, fleet), *_globs_without_match(document, fleet)]
    node = part(_NODE, document.data.get("node", {}))
    return [*found, *_too_much_memory(document, fleet, node), *_nodes(document, fleet, node)] if node else found


def _repeated_names(document: Document, fleet: tuple[Group, ...]) -> Iterator[Mistake]:
    seen: Counter[str] = Counter()
    for index, group in enumerate(fleet):
        if seen[group.name]:
            message = f'a second group "{group.name}"; sandbox names must be unique, give it another name'
            yield document.mistake(("fleet", index, "name"), message)
        seen[group.name] += 1


def _too_much_memory(document: Document, fleet: tuple[Group, ...], node: NodeSpec) -> Iterator[Mistake]:
    total = sum(group.count * group.memory for group in fleet)
    if total > node.memory:
        message = (
            f"the fleet needs {format_size(total)}, the node has {format_size(node.memory)}; "
            "make the fleet smaller or raise node.memory"
        )
        yield document.mistake(("fleet",), message, key=True)


def _nodes(document: Document, fleet: tuple[Group, ...], node: NodeSpec) -> Iterator[Mistake]:
    """Groups on a simulated node that is not there or that cannot hold its guests, and budgets that exceed the
    machine's."""
    if sum(node.budgets.values()) > node.memory:
        what = f"the budgets are more than the machine's {format_size(node.memory)}; raise node.memory"
        yield document.mistake(("node", "budgets"), what)
    for index, group in enumerate(fleet):
        if group.node is not None and group.node not in node.budgets:
            what = f'no budget of a node "{group.node}"; {did_you_mean(group.node, node.budgets)}'
            yield document.mistake(("fleet", index, "node"), what)
    for name, size in node.budgets.items():
        guests = sum(group.count * group.memory for group in fleet if group.node == name)
        if guests > size:
            what = (
                f"its guests need {format_size(guests)}, its budget is {format_size(size)}; put fewer there or raise it"
            )
            yield document.mistake(("node", "budgets", name), what)


def _globs_without_match(document: Document, fleet: tuple[Group, ...]) -> Iterator[Mistake]:
    names = [sandbox.name for sandbox in sandbox_specs(fleet)]
    groups = {f"{group.name}-*" for group in fleet}
    mistakes: dict[str, str | None] = {}  # by glob: one that stands there a thousand times is looked for once
    for path, glob in _texts(document.data, ()):
        if path[-1] != "sandboxes":
            continue
        if glob not in mistakes:
            mistakes[glob] = None if any(fnmatchcase(name, glob) for name in names) else _unmatched(glob, names, groups)
        if (what := mistakes[glob]) is not None:
            yield document.mistake(path, what)
        if sum(each is not None for each in mistakes.values()) > MOST_MISTAKES:  # the others, once these are mended
            return


def _unmatched(glob: str, names: list[str], groups: set[str]) -> str:
    known = {*groups, *names} if get_close_matches(glob, [*groups, *names]) else groups
    return f'no sandbox matches "{glob}"; {did_you_mean(glob, known)}'


def _unserved_steps(document: Document) -> Iterator[Mistake]:
    """Outages that the scenario's flag source cannot have, and changes of flags that are not the scenario's own."""
    source = _source(document)
    for index, step in enumerate(_list(document, "steps")):
        outage = step.get("outage") if isinstance(step, dict) else None
        fault = outage.get("fault") if isinstance(outage, dict) else None
        if fault is not None and source is not None and (hint := _source_missed(fault, source)):
            yield document.mistake(("steps", index, "outage", "fault"), hint)
        if isinstance(step, dict) and "flag" in step and source == "launchdarkly":
            message = "a scenario cannot change LaunchDarkly's own flags; use source: relay"
            yield document.mistake(("steps", index, "flag"), message, key=True)


def _steps_of_a_dead_node(document: Document) -> Iterator[Mistake]:
    """Steps that need a node, between a crash that is not armed and the next restart."""
    down = False
    for index, step in enumerate(_list(document, "steps")):
        kind = next(iter(step)) if isinstance(step, dict) and len(step) == 1 else None
        if kind in {"crash", "restart"}:
            down = kind == "crash" and (down or step[kind] == {})
        elif down and kind not in {None, "expect", "wait"}:
            message = f"the node is down after a crash; put a restart step before {kind}"
            yield document.mistake(("steps", index), message)
            down = False


def _canaries_without_bound(document: Document) -> Iterator[Mistake]:
    """A canary on a metric needs an expectation that bounds the metric."""
    expected = [each for each in _list(document, "expect") if isinstance(each, dict)]
    bound = [each.get("metric") for each in expected if "verdict" not in each]
    for index, each in enumerate(_list(document, "expect")):
        metric = each.get("metric") if isinstance(each, dict) and "verdict" in each else None
        if metric is not None and metric not in bound:
            message = f"nothing bounds {metric}, so it cannot be violated; add {{metric: {metric}, max: ...}}"
            yield document.mistake(("expect", index, "metric"), message)


def _list(document: Document, key: str) -> list[Any]:
    found = document.data.get(key)
    return found if isinstance(found, list) else []


def _source(document: Document) -> str | None:
    """`inline`, `file`, `relay` or `launchdarkly`; None if the file is wrong about it."""
    flags = document.data.get("flags")
    if not isinstance(flags, dict):
        return "inline"
    source = "file" if "file" in flags else flags.get("source", "inline")
    return source if isinstance(source, str) and source in get_args(FlagSource) else None


def _source_missed(fault: str, source: str) -> str | None:
    if fault == "recover":
        return None if source in {"relay", "file"} else "there is no outage to recover from; add flags: {source: relay}"
    if fault == "tear":
        return None if source == "file" else "only a flag file can be torn; use flags: {file: NAME}"
    return None if source == "relay" else "only a relay can have such an outage; use flags: {source: relay}"


def _texts(data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every string of a document with its path."""
    if isinstance(data, str):
        yield path, data
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield from _texts(value, (*path, key))


NEEDS_EXPOSURE = frozenset({"drill"})


def plan_checks(document: Document) -> list[Mistake]:
    """Mistakes of a plan as a whole."""
    if not isinstance(document.data, dict):
        return []
    of_steps = (_first_step, _approvals, _drills_of_nothing, _rises)
    checks = (*of_steps, _metrics, _ratios, _time_and_source, _lease, _flag, _salvage_arm)
    found = [each for check in checks for each in check(document)]
    return [*found, *cross_checks(document)]


def _steps(document: Document) -> list[tuple[int, str, Any]]:
    """(index, kind, settings) of the steps that have one key."""
    return [
        (index, *next(iter(each.items())))
        for index, each in enumerate(_list(document, "steps"))
        if isinstance(each, dict) and len(each) == 1
    ]


def _first_step(document: Document) -> Iterator[Mistake]:
    steps = _steps(document)
    if steps and steps[0][1] != "setWeight":
        yield document.mistake(("steps", steps[0][0]), "a plan begins with setWeight; add `setWeight: 0` before it")


def _approvals(document: Document) -> Iterator[Mistake]:
    """A rehearsal that goes on after an approval begins with a stage of its own."""
    kinds = {index: kind for index, kind, _ in _steps(document)}
    for index in (index for index, kind in kinds.items() if kind == "approve"):
        if kinds.get(index + 1) != "setWeight":
            yield document.mistake(("steps", index), "approve ends a stage; put the next setWeight right after it")


def _weight(value: Any) -> float | None:
    value = value.get("weight") if isinstance(value, dict) else value
    try:
        return float(value.rstrip("%")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return None


def _drills_of_nothing(document: Document) -> Iterator[Mistake]:
    weight: float | None = 0.0
    for index, kind, settings in _steps(document):
        if kind == "setWeight":
            weight = _weight(settings)
        elif kind in NEEDS_EXPOSURE and weight == 0:
            yield document.mistake(("steps", index), f"at weight 0 a {kind} shows nothing; put a setWeight before it")


def _rises(document: Document) -> Iterator[Mistake]:
    """Repeating a weight is usually a slip; lowering it is a rehearsed rollback."""
    last: float | None = None
    for index, kind, settings in _steps(document):
        if kind == "setWeight":
            weight = _weight(settings)
            if weight is not None and weight == last:
                yield document.mistake(("steps", index, kind), f"the weight is {weight:g} already; remove this step")
            last = weight


def _metrics(document: Document) -> Iterator[Mistake]:
    metrics = document.data.get("metrics")
    listed = [each.get("name") for each in metrics if isinstance(each, dict)] if isinstance(metrics, list) else []
    seen: set[str] = set()
    for index, name in enumerate(listed):
        if isinstance(name, str) and name in seen:
            yield document.mistake(("metrics", index, "name"), f'a second metric "{name}"; one is enough')
        seen |= {name} if isinstance(name, str) else set()
    names = [each for each in listed if isinstance(each, str)]
    for index, kind, settings in _steps(document):
        if kind != "analysis" or not isinstance(settings, dict):
            continue
        if not names:
            yield document.mistake(("steps", index), "the plan has no metrics to analyse; add metrics")
        asked = settings.get("metrics")
        for place, name in enumerate(asked if isinstance(asked, list) else []):
            if isinstance(name, str) and name not in names and names:
                hint = f'the plan has no metric "{name}"; {did_you_mean(name, names)}'
                yield document.mistake(("steps", index, "analysis", "metrics", place), hint)


def _ratios(document: Document) -> Iterator[Mistake]:
    """In real time the arms do not alternate, so a metric that compares their times would stop every rollout."""
    metrics = document.data.get("metrics")
    if document.data.get("time") != "real" or not isinstance(metrics, list):
        return
    for index, each in enumerate(metrics):
        name = each.get("name") if isinstance(each, dict) else None
        if isinstance(name, str) and name in MEASURES and MEASURES[name].unit == "ratio" and not each.get("dryRun"):
            hint = "in real time the arms do not alternate, so times do not compare; use time: virtual, or dryRun: true"
            yield document.mistake(("metrics", index, "name"), hint)


def _time_and_source(document: Document) -> Iterator[Mistake]:
    source, time = _source(document), document.data.get("time", "virtual")
    if source in {"relay", "launchdarkly"} and time == "virtual":
        hint = f"{source} uses sockets, which do not follow virtual time; use time: real, with short waits"
        yield document.mistake(("flags", "source"), hint)
    if time == "real" and source == "inline":
        yield document.mistake(("time",), "inline flags have no sockets to wait for; use flags: {source: relay}")


def _lease(document: Document) -> Iterator[Mistake]:
    flags = document.data.get("flags")
    if isinstance(flags, dict) and "lease" in flags:
        yield document.mistake(("flags", "lease"), "a plan's lease goes at its top level; move it there", key=True)
    lease = document.data.get("lease", "none")
    if lease not in ("none", None) and _source(document) == "inline":
        hint = "a lease needs a flag service whose heartbeat it watches; add flags: {source: relay}"
        yield document.mistake(("lease",), hint)


def _flag(document: Document) -> Iterator[Mistake]:
    key = document.data.get("flag", "memfd-punch-on-snapshot")
    known = FLAGS.get(key) if isinstance(key, str) else None
    if known is None:
        return
    if known.type != "boolean":
        yield document.mistake(("flag",), f"{key} is not a boolean flag; a plan rolls out true or false")
    elif (safe := document.data.get("safe", known.safe)) is not known.safe and isinstance(safe, bool):
        word = str(known.safe).lower()
        yield document.mistake(("safe",), f"rolling {key} back to the other value destroys memory; write safe: {word}")
    flags = document.data.get("flags")
    if isinstance(flags, dict) and key in flags:
        yield document.mistake(("flags", key), "the plan's steps set this flag's weight; remove it here", key=True)


def _salvage_arm(document: Document) -> Iterator[Mistake]:
    if document.data.get("salvageArm") is not True:
        return
    engine, flags = document.data.get("engine"), document.data.get("flags")
    policy = engine.get("on_copy_failure", "discard") if isinstance(engine, dict) else "discard"
    served = {document.data.get("flag", ""), *(flags if isinstance(flags, dict) else ())}
    if why := why_no_salvage_arm(policy, served, _source(document)):
        yield document.mistake(("salvageArm",), why)


def why_no_salvage_arm(policy: str, served: Collection[Any], source: str | None) -> str | None:
    """Why a third arm with salvage would show nothing, and what to do; `served` are the keys of the plan's flags."""
    if policy == "salvage":
        return "the plan's engine salvages in every arm; remove its on_copy_failure, or the salvage arm"
    if SALVAGE in served:
        return f"where {SALVAGE} is served it decides in every arm; remove that flag, or the salvage arm"
    if source == "launchdarkly":
        return "LaunchDarkly's own flag is followed by one arm only; use another source, or remove the salvage arm"
    return None
