"""LaunchDarkly's own exports, turned into our flag file: what cannot be carried over is a problem, never dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flags.catalog import FLAGS, did_you_mean
from flags.document import Path
from flags.launchdarkly import refusal
from flags.problem import Problem, objects
from flags.rest_export import RestExport

_AS_SENT = "give the export as LaunchDarkly sent it"


@dataclass(slots=True)
class Imported:
    """Flags and segments in the form of our file, where each came from, and what stands against carrying them."""

    flags: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, str], Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    form: str = "SDK payload"


def convert(document: Any, env: str | None) -> Imported:
    """A REST export (a list of flags, one flag, or segments; `env` names the environment) or an SDK payload."""
    if isinstance(document, dict) and isinstance(document.get("data"), dict):  # a `put` as the stream sends it
        return _payload(document["data"], ("data",))
    if isinstance(document, dict) and isinstance(document.get("flags"), dict) and "items" not in document["flags"]:
        return _payload(document, ())
    return _rest(document, env)


def _payload(payload: Mapping[str, Any], path: Path) -> Imported:
    found = Imported()
    for name, items in payload.items():
        if name in ("flags", "segments") and isinstance(items, dict):
            found.problems += _checked(name, items, (*path, name))
            getattr(found, name).update(items)
            found.origins.update({(name, key): (*path, name, key) for key in items})
        elif items:
            found.problems.append(_cannot((*path, name), name, "remove it, if no flag needs it"))
    return found


def _checked(section: str, items: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for key, item in items.items():
        reason = refusal(section, item) if isinstance(item, dict) else "it is not an object"
        if isinstance(item, dict) and "environments" in item:
            message = f'"{key}" has its state under "environments": this is no SDK payload'
            yield Problem((*path, key), message, "every rollout in it is lost", _AS_SENT)
        elif section == "flags" and isinstance(item, dict) and _is_flattened(key, item):
            message = f'the variations of "{key}" are wrapped objects: somebody flattened a REST export by hand'
            production = "the object itself is served: it is not a boolean, so nobody is punched, silently"
            yield Problem((*path, key, "variations"), message, production, _AS_SENT)
        elif reason:
            message = f'LaunchDarkly refuses "{key}": {reason}'
            yield Problem((*path, key), message, "nothing is served", "correct its type")


def _is_flattened(key: str, flag: Mapping[str, Any]) -> bool:
    variations = [each for _, each in objects(flag, "variations")]
    return any("value" in each and (key in FLAGS or "_id" in each) for each in variations)


def _rest(document: Any, env: str | None) -> Imported:
    found = Imported(form="REST export")
    export = RestExport(env)
    for path, item in _rest_items(document):
        if not isinstance(item, dict) or not isinstance(item.get("key"), str):
            export.problems.append(Problem(path, "neither a flag nor a segment: it has no key", "", _AS_SENT))
        elif "environments" in item:
            found.flags[item["key"]] = export.flag(path, item)
            found.origins["flags", item["key"]] = path
        else:
            found.segments[item["key"]] = export.segment(path, item)
            found.origins["segments", item["key"]] = path
    found.problems = export.problems
    if not found.flags and not found.segments and not found.problems:
        fix = 'give {"items": [...]} of LaunchDarkly\'s REST API, or an SDK payload {"flags": {...}}'
        found.problems.append(Problem((), "neither flags nor segments are in it", "", fix))
    return found


def _rest_items(document: Any) -> Iterator[tuple[Path, Any]]:
    """Flags and segments, wherever the export lists them: at the top, under `items`, `flags` or `segments`."""
    if isinstance(document, list):
        yield from (((index,), item) for index, item in enumerate(document))
    elif isinstance(document, dict) and "key" in document:
        yield (), document
    elif isinstance(document, dict):
        for name in ("items", "flags", "segments"):
            yield from (((name, *path), item) for path, item in _rest_items(document.get(name)))


def references(found: Imported) -> Iterator[Problem]:
    """Prerequisites and segments that flags name and the export does not have."""
    for section, items in (("flags", found.flags), ("segments", found.segments)):
        for key, item in items.items():
            path = found.origins.get((section, key), ())
            for _, asked in objects(item, "prerequisites"):
                if asked.get("key") not in found.flags:
                    yield _missing(path, f'"{key}" asks for the flag "{asked.get("key")}"', "export that flag too")
            for name in sorted(_segments_named(item) - found.segments.keys()):
                yield _missing(path, f'"{key}" names the segment "{name}"', "give the segments too, with --segments")


def _segments_named(item: Mapping[str, Any]) -> set[str]:
    clauses = [clause for _, rule in objects(item, "rules") for _, clause in objects(rule, "clauses")]
    return {str(value) for each in clauses if each.get("op") == "segmentMatch" for value in each.get("values") or []}


def _missing(path: Path, what: str, fix: str) -> Problem:
    return Problem(path, f"{what}, which is not in the export", "it would be evaluated without it", fix)


def _cannot(path: Path, name: str, fix: str) -> Problem:
    return Problem(path, f'"{name}" cannot be carried over', "what it does would be lost", fix)


def environments(document: Any) -> list[str]:
    """The environments that a REST export has the flags' state of."""
    named = {
        name for _, item in _rest_items(document) if isinstance(item, dict) for name in item.get("environments") or {}
    }
    return sorted(named)


def environment_hint(env: str | None, document: Any) -> str | None:
    """What to say of an environment that the export does not have; None where it has it, or has none at all."""
    known = environments(document)
    if not known or env in known:
        return None
    return f"--env is needed; use one of: {', '.join(known)}" if env is None else did_you_mean(env, known)
