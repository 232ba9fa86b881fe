"""Mistakes in a flag file, those included that LaunchDarkly accepts and a destructive flag must not have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flags.catalog import FLAGS, did_you_mean
from flags.context import KINDS
from flags.document import Document, Path, Position, parse

SECTIONS = ("flags", "segments")
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One mistake: where it stands (1-based), what it is and what to do. Ordered by place."""

    line: int
    column: int
    severity: Severity
    message: str
    fix: str

    def text(self, path: str) -> str:
        return f"{path}:{self.line}:{self.column}: {self.severity}: {self.message}; {self.fix}"


class Problem(NamedTuple):
    """A mistake at a path of the document; lint() knows at which line that is."""

    path: Path
    message: str
    fix: str
    severity: Severity = "error"


def check(text: str) -> tuple[Document | None, list[Finding]]:
    """A flag file's document (None where it is not JSON) and everything found wrong with it."""
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        fix = "write JSON: no comments, no trailing commas" if text.strip() else "write at least an empty set of flags"
        return None, [Finding(error.lineno, error.colno, "error", f"not JSON: {error.msg}", fix)]
    duplicates = [
        Finding(*position, "error", f'duplicate key "{path[-1]}"', "keep one of the two")
        for path, position in document.duplicates
    ]
    return document, sorted(duplicates + lint(document.value, document.positions))


def lint(document: Any, positions: Mapping[Path, Position]) -> list[Finding]:
    """Everything wrong with a parsed flag file, by place."""
    return sorted(
        Finding(*_place(problem.path, positions), problem.severity, problem.message, problem.fix)
        for problem in _document(document)
    )


def _place(path: Path, positions: Mapping[Path, Position]) -> Position:
    """A missing part is reported where the part stands that lacks it."""
    while path and path not in positions:
        path = path[:-1]
    return positions.get(path, Position(1, 1))


def _document(document: Any) -> Iterator[Problem]:
    if not isinstance(document, dict):
        yield Problem((), "the document is not an object", 'write {"flags": {...}}')
        return
    for key in document.keys() - set(SECTIONS):
        yield Problem((key,), f'unknown key "{key}"', did_you_mean(key, SECTIONS))
    if "flags" not in document:
        yield Problem((), '"flags" is missing', 'add "flags": {}, which serves every safe value')
    for section in SECTIONS:
        yield from _section(section, document.get(section, {}))


def _section(section: str, items: Any) -> Iterator[Problem]:
    if not isinstance(items, dict):
        yield Problem((section,), f'"{section}" is not an object', "write an object with an entry for each key")
        return
    if section == "flags":
        yield from _unknown_flags(items)
    for key, item in items.items():
        path = (section, key)
        if not isinstance(item, dict):
            yield Problem(path, f'"{key}" is not an object', "write it in full, as LaunchDarkly exports it")
            continue
        yield from _identity(path, key, item)
        if section == "flags":
            yield from _flag(path, key, item)


def _identity(path: Path, key: str, item: dict[str, Any]) -> Iterator[Problem]:
    fix = f'write "key": "{key}"'
    if "key" not in item:
        yield Problem(path, f'"{key}" has no "key"', fix)
    elif item["key"] != key:
        yield Problem((*path, "key"), f'"key" is {json.dumps(item["key"])} inside "{key}"', fix)


def _unknown_flags(flags: dict[str, Any]) -> Iterator[Problem]:
    required = {
        each.get("key")
        for flag in flags.values()
        if isinstance(flag, dict)
        for _, each in _objects(flag, "prerequisites")
    }
    for key in flags.keys() - FLAGS.keys():
        if key not in required:
            yield Problem(
                ("flags", key),
                f'unknown flag "{key}" is ignored',
                did_you_mean(key, FLAGS),
                severity="warning",
            )


def _flag(path: Path, key: str, flag: dict[str, Any]) -> Iterator[Problem]:
    variations = flag.get("variations")
    if not isinstance(variations, list) or not variations:
        yield Problem((*path, "variations"), f'"{key}" has no variations', 'write "variations": [false, true]')
        return
    if key in FLAGS:
        yield from _types(path, variations)
    if not isinstance(flag.get("on"), bool):
        yield Problem((*path, "on"), f'"{key}" is neither on nor off', 'write "on": true or "on": false')
    yield from _off(path, key, flag, variations)
    yield from _targets(path, flag, variations)
    yield from _served((*path, "fallthrough"), key, flag.get("fallthrough"), variations)
    for index, rule in _objects(flag, "rules"):
        yield from _served((*path, "rules", index), key, rule, variations)
        yield from _clauses((*path, "rules", index), rule)


def _types(path: Path, variations: list[Any]) -> Iterator[Problem]:
    for index, value in enumerate(variations):
        if not isinstance(value, bool):
            shown = json.dumps(value)
            yield Problem((*path, "variations", index), f"variation {shown} is not a boolean", "write true or false")


def _off(path: Path, key: str, flag: dict[str, Any], variations: list[Any]) -> Iterator[Problem]:
    if flag.get("offVariation") is None:
        yield Problem(path, f'"{key}" has no "offVariation"', "name the variation that off serves")
        return
    off = flag["offVariation"]
    here = (*path, "offVariation")
    wrong = list(_index(here, off, variations))
    yield from wrong
    if not wrong and key in FLAGS and variations[off] is True and not FLAGS[key].safe:
        yield Problem(here, f'off serves true, so "{key}" cannot be switched off', "let off serve false")


def _targets(path: Path, flag: dict[str, Any], variations: list[Any]) -> Iterator[Problem]:
    for name in ("targets", "contextTargets"):
        for index, target in _objects(flag, name):
            here = (*path, name, index)
            yield from _index((*here, "variation"), target.get("variation"), variations)
            yield from _context_kind(here, target)


def _clauses(path: Path, rule: dict[str, Any]) -> Iterator[Problem]:
    for index, clause in _objects(rule, "clauses"):
        if clause.get("op") != "segmentMatch" and clause.get("attribute") != "kind":
            yield from _context_kind((*path, "clauses", index), clause)


def _served(path: Path, key: str, served: Any, variations: list[Any]) -> Iterator[Problem]:
    """A fallthrough or a rule: exactly one of a variation and a rollout."""
    if not isinstance(served, dict) or ("variation" in served) == ("rollout" in served):
        yield Problem(path, "neither one variation nor one rollout is served", 'write "variation" or "rollout"')
    elif "variation" in served:
        yield from _index((*path, "variation"), served["variation"], variations)
    elif not isinstance(served["rollout"], dict) or not _objects(served["rollout"], "variations"):
        yield Problem((*path, "rollout"), "the rollout has no variations", "list variations with weights")
    else:
        yield from _rollout((*path, "rollout"), key, served["rollout"], variations)


def _rollout(path: Path, key: str, rollout: dict[str, Any], variations: list[Any]) -> Iterator[Problem]:
    yield from _context_kind(path, rollout)
    entries = _objects(rollout, "variations")
    wrong = [problem for index, entry in entries for problem in _entry(path, index, entry, variations)]
    yield from wrong
    if wrong:
        return
    total = sum(entry["weight"] for _, entry in entries)
    if total != 100_000:
        fix = "make them sum to 100000: LaunchDarkly gives what is left to the last entry"
        yield Problem((*path, "variations"), f"the weights sum to {total}", fix)
    if key in FLAGS and variations[entries[0][1]["variation"]] is not FLAGS[key].safe:
        message = "the unsafe variation is listed first: contexts without the rollout's kind get it at any weight"
        yield Problem((*path, "variations", 0), message, f"list {json.dumps(FLAGS[key].safe)} first")


def _entry(path: Path, index: int, entry: dict[str, Any], variations: list[Any]) -> Iterator[Problem]:
    here = (*path, "variations", index)
    yield from _index((*here, "variation"), entry.get("variation"), variations)
    weight = entry.get("weight")
    if type(weight) is not int or not 0 <= weight <= 100_000:
        message = f"weight {json.dumps(weight)} is not an integer from 0 to 100000"
        yield Problem((*here, "weight"), message, "write thousandths of a percent: 1000 is 1 %")


def _index(path: Path, index: Any, variations: list[Any]) -> Iterator[Problem]:
    if type(index) is not int or not 0 <= index < len(variations):
        yield Problem(path, f"variation {json.dumps(index)} is out of range", f"use 0 to {len(variations) - 1}")


def _context_kind(path: Path, item: dict[str, Any]) -> Iterator[Problem]:
    """Without one LaunchDarkly means `user`, which no sandbox has: nothing matches, rollouts serve entry 0."""
    if "contextKind" not in item:
        yield Problem(path, '"contextKind" is missing, which means "user"', f"use one of: {', '.join(KINDS)}")
    elif item["contextKind"] not in KINDS:
        message = f"unknown contextKind {json.dumps(item['contextKind'])}"
        yield Problem((*path, "contextKind"), message, did_you_mean(str(item["contextKind"]), KINDS))


def _objects(item: dict[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a list, with their index; what is of another type, LaunchDarkly's own parser refuses."""
    items = item.get(name)
    return [(i, each) for i, each in enumerate(items) if isinstance(each, dict)] if isinstance(items, list) else []
