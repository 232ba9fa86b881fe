"""What no single field of a plan can know: steps against each other, the flag source, the fleet and the metrics."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flags.catalog import FLAGS, did_you_mean
from sim.rehearsal.measures import MEASURES
from sim.scenario_checks import cross_checks
from sim.strict import Finding, finding
from sim.yaml_positions import Document

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


def _source(document: Document) -> str | None:
    flags = document.data.get("flags")
    if not isinstance(flags, dict):
        return "inline"
    source = "file" if "file" in flags else flags.get("source", "inline")
    return source if source in _SOURCES else None


def _time_and_source(document: Document) -> Iterator[Finding]:
    source, time = _source(document), document.data.get("time", "virtual")
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
    if lease not in {"none", None} and _source(document) in {"inline", "file"}:
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
