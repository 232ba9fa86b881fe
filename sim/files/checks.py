"""What no single field can know, of scenarios and plans."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from flags.catalog import FLAGS, did_you_mean
from sim.files.fleet import Group, Node, sandbox_specs
from sim.files.metrics import MEASURES
from sim.files.strict import Finding, finding
from sim.files.units import format_size
from sim.files.yaml import Document, Path

_FLEET: TypeAdapter[tuple[Group, ...]] = TypeAdapter(Annotated[tuple[Group, ...], Field(strict=False)])
_NODE = TypeAdapter(Node)


def cross_checks(document: Document) -> list[Finding]:
    """Findings of outages against their source, and of the rest against the fleet where that is not mistaken."""
    if not isinstance(document.data, dict):
        return []
    checks = (_unserved_steps, _steps_of_a_dead_node, _canaries_without_bound)
    return [*(found for check in checks for found in check(document)), *_fleet_checks(document)]


def _fleet_checks(document: Document) -> list[Finding]:
    fleet = _part(_FLEET, document.data.get("fleet"))
    if not fleet:
        return []
    found = [*_repeated_names(document, fleet), *_globs_without_match(document, fleet)]
    node = _part(_NODE, document.data.get("node", {}))
    return [*found, *_too_much_memory(document, fleet, node)] if node else found


def _part(adapter: TypeAdapter[Any], data: Any) -> Any:
    try:
        return adapter.validate_python(data, context={})
    except ValidationError:
        return None


def _repeated_names(document: Document, fleet: tuple[Group, ...]) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for index, group in enumerate(fleet):
        if seen[group.name]:
            message = f'a second group "{group.name}"; sandbox names must be unique, give it another name'
            yield finding(document, ("fleet", index, "name"), message)
        seen[group.name] += 1


def _too_much_memory(document: Document, fleet: tuple[Group, ...], node: Node) -> Iterator[Finding]:
    total = sum(group.count * group.memory for group in fleet)
    if total > node.memory:
        message = (
            f"the fleet needs {format_size(total)}, the node has {format_size(node.memory)}; "
            "make the fleet smaller or raise node.memory"
        )
        yield finding(document, ("fleet",), message, key=True)


def _globs_without_match(document: Document, fleet: tuple[Group, ...]) -> Iterator[Finding]:
    names = [sandbox.name for sandbox in sandbox_specs(fleet)]
    groups = {f"{group.name}-*" for group in fleet}
    for path, glob in _texts(document.data, ()):
        if path[-1] == "sandboxes" and not any(fnmatchcase(name, glob) for name in names):
            known = {*groups, *names} if get_close_matches(glob, [*groups, *names]) else groups
            yield finding(document, path, f'no sandbox matches "{glob}"; {did_you_mean(glob, known)}')


def _unserved_steps(document: Document) -> Iterator[Finding]:
    """Outages of a source that this scenario has not, and changes of flags that are not its own."""
    source, steps = _source(document.data.get("flags")), document.data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        outage = step.get("outage") if isinstance(step, dict) else None
        fault = outage.get("fault") if isinstance(outage, dict) else None
        if fault is not None and source is not None and (hint := _source_missed(fault, source)):
            yield finding(document, ("steps", index, "outage", "fault"), hint)
        if isinstance(step, dict) and "flag" in step and source == "launchdarkly":
            message = "LaunchDarkly's own flags are not changed from here; use source: relay"
            yield finding(document, ("steps", index, "flag"), message, key=True)


def _steps_of_a_dead_node(document: Document) -> Iterator[Finding]:
    """Steps between a crash at once and the next restart that need a node."""
    down = False
    for index, step in enumerate(_list(document, "steps")):
        kind = next(iter(step)) if isinstance(step, dict) and len(step) == 1 else None
        if kind in {"crash", "restart"}:
            down = kind == "crash" and (down or step[kind] == {})
        elif down and kind not in {None, "expect", "wait"}:
            message = f"the node is down after a crash; put a restart step before {kind}"
            yield finding(document, ("steps", index), message)
            down = False


def _canaries_without_bound(document: Document) -> Iterator[Finding]:
    """A metric is violated by a bound: a canary needs one beside it."""
    expected = [each for each in _list(document, "expect") if isinstance(each, dict)]
    bound = [each.get("metric") for each in expected if "verdict" not in each]
    for index, each in enumerate(_list(document, "expect")):
        metric = each.get("metric") if isinstance(each, dict) and "verdict" in each else None
        if metric is not None and metric not in bound:
            message = f"nothing bounds {metric}, so it cannot be violated; add {{metric: {metric}, max: ...}}"
            yield finding(document, ("expect", index, "metric"), message)


def _list(document: Document, key: str) -> list[Any]:
    found = document.data.get(key)
    return found if isinstance(found, list) else []


def _source(flags: Any) -> str | None:
    """`inline`, `file`, `relay` or `launchdarkly`; None where that is mistaken itself."""
    if not isinstance(flags, dict):
        return "inline"
    source = "file" if "file" in flags else flags.get("source", "inline")
    return source if source in {"inline", "file", "relay", "launchdarkly"} else None


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
_SOURCES = frozenset({"inline", "file", "relay", "launchdarkly"})


def plan_checks(document: Document, folder: pathlib.Path) -> list[Finding]:
    """Findings of a plan as a whole; `folder` is where its flag file lies."""
    if not isinstance(document.data, dict):
        return []
    checks = (_first_step, _drills_of_nothing, _metrics, _ratios, _time_and_source, _lease, _flag, _rises)
    found = [each for check in checks for each in check(document)]
    return [*found, *_flag_file(document, folder), *cross_checks(document)]


def _steps(document: Document) -> list[tuple[int, str, Any]]:
    """(index, kind, settings) of the steps that have one key."""
    steps = document.data.get("steps")
    return [
        (index, *next(iter(each.items())))
        for index, each in enumerate(steps if isinstance(steps, list) else [])
        if isinstance(each, dict) and len(each) == 1
    ]


def _first_step(document: Document) -> Iterator[Finding]:
    steps = _steps(document)
    if steps and steps[0][1] != "setWeight":
        yield finding(document, ("steps", steps[0][0]), "a plan begins with setWeight; add `setWeight: 0` before it")


def _weight(value: Any) -> float | None:
    try:
        return float(value.rstrip("%")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return None


def _drills_of_nothing(document: Document) -> Iterator[Finding]:
    weight: float | None = 0.0
    for index, kind, settings in _steps(document):
        if kind == "setWeight":
            weight = _weight(settings)
        elif kind in NEEDS_EXPOSURE and weight == 0:
            yield finding(document, ("steps", index), f"at weight 0 a {kind} shows nothing; put a setWeight before it")


def _rises(document: Document) -> Iterator[Finding]:
    """The same weight again is most often a slip; going down is a rehearsed rollback."""
    last: float | None = None
    for index, kind, settings in _steps(document):
        if kind == "setWeight":
            weight = _weight(settings)
            if weight is not None and weight == last:
                yield finding(document, ("steps", index, kind), f"the weight is {weight:g} already; remove this step")
            last = weight


def _metrics(document: Document) -> Iterator[Finding]:
    metrics = document.data.get("metrics")
    listed = [each.get("name") for each in metrics if isinstance(each, dict)] if isinstance(metrics, list) else []
    seen: Counter[Any] = Counter()
    for index, name in enumerate(listed):
        if isinstance(name, str) and seen[name]:
            yield finding(document, ("metrics", index, "name"), f'a second metric "{name}"; one is enough')
        seen[name] += 1 if isinstance(name, str) else 0
    names = [each for each in listed if isinstance(each, str)]
    for index, kind, settings in _steps(document):
        if kind != "analysis" or not isinstance(settings, dict):
            continue
        if not names:
            yield finding(document, ("steps", index), "the plan has no metrics to analyse; add metrics")
        asked = settings.get("metrics")
        for place, name in enumerate(asked if isinstance(asked, list) else []):
            if isinstance(name, str) and name not in names and names:
                hint = f'the plan has no metric "{name}"; {did_you_mean(name, names)}'
                yield finding(document, ("steps", index, "analysis", "metrics", place), hint)


def _ratios(document: Document) -> Iterator[Finding]:
    """In real time the arms cannot take turns: a ratio of times that counts would stop every rollout."""
    metrics = document.data.get("metrics")
    if document.data.get("time") != "real" or not isinstance(metrics, list):
        return
    for index, each in enumerate(metrics):
        name = each.get("name") if isinstance(each, dict) else None
        if isinstance(name, str) and name in MEASURES and MEASURES[name].unit == "ratio" and not each.get("dryRun"):
            hint = "in real time the arms take no turns, so times do not compare; use time: virtual, or dryRun: true"
            yield finding(document, ("metrics", index, "name"), hint)


def _plan_source(document: Document) -> str | None:
    flags = document.data.get("flags")
    if not isinstance(flags, dict):
        return "inline"
    source = "file" if "file" in flags else flags.get("source", "inline")
    return source if source in _SOURCES else None


def _time_and_source(document: Document) -> Iterator[Finding]:
    source, time = _plan_source(document), document.data.get("time", "virtual")
    if source in {"relay", "launchdarkly"} and time == "virtual":
        hint = f"{source} has sockets, which know no virtual time; use time: real, with short waits"
        yield finding(document, ("flags", "source"), hint)
    if time == "real" and source == "inline":
        yield finding(document, ("time",), "inline flags have no sockets to wait for; use flags: {source: relay}")


def _lease(document: Document) -> Iterator[Finding]:
    flags = document.data.get("flags")
    if isinstance(flags, dict) and "lease" in flags:
        yield finding(document, ("flags", "lease"), "the lease of a plan stands at its top level; move it", key=True)
    lease = document.data.get("lease", "none")
    if lease not in {"none", None} and _plan_source(document) == "inline":
        hint = "a lease needs a flag service whose heartbeat it watches; add flags: {source: relay}"
        yield finding(document, ("lease",), hint)


def _flag(document: Document) -> Iterator[Finding]:
    key = document.data.get("flag", "memfd-punch-on-snapshot")
    known = FLAGS.get(key) if isinstance(key, str) else None
    if known is None:
        return
    if known.type != "boolean":
        yield finding(document, ("flag",), f"{key} is no boolean flag; a plan rolls out true or false")
    elif (safe := document.data.get("safe", known.safe)) is not known.safe and isinstance(safe, bool):
        word = str(known.safe).lower()
        yield finding(document, ("safe",), f"the safe variation of {key} is {word}; a rollback to the other destroys")
    flags = document.data.get("flags")
    if isinstance(flags, dict) and key in flags:
        yield finding(document, ("flags", key), "the steps set the weight of this flag; remove it here", key=True)


def _flag_file(document: Document, folder: pathlib.Path) -> Iterator[Finding]:
    flags = document.data.get("flags")
    file = flags.get("file") if isinstance(flags, dict) else None
    if isinstance(file, str) and not (folder / file).is_file():
        hint = f'no file "{file}" beside the plan; the path is relative to the plan\'s folder'
        yield finding(document, ("flags", "file"), hint)
