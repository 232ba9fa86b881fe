"""What no single field of a scenario can know: names, globs and memory against the fleet as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from flags.catalog import did_you_mean
from sim.fleet_spec import Group, Node, sandbox_specs
from sim.strict import Finding, finding
from sim.units import format_size
from sim.yaml_positions import Document, Path

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
