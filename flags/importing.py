"""LaunchDarkly's exports as a flag file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flags.catalog import FLAGS, did_you_mean
from flags.decode import sections
from flags.document import Path
from flags.edit import STAGED
from flags.launchdarkly import refusal
from flags.problem import Problem, objects

_AS_SENT = "give the export as LaunchDarkly sent it"


@dataclass(slots=True)
class Imported:
    """Flags and segments in the form of our file, where each came from, and what stands against carrying them."""

    flags: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, str], Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    form: str = "SDK payload"
    warnings: list[Problem] = field(default_factory=list)


def convert(document: Any, env: str | None) -> Imported:
    """A REST export (a list of flags, one flag, or segments; `env` names the environment) or an SDK payload."""
    if isinstance(document, dict) and isinstance(document.get("events"), list):
        return _payload(_objects_of(document["events"]), ("events",), form="FDv2 payload")
    if isinstance(document, dict) and isinstance(document.get("flagValues"), dict):
        return _values(document)
    if isinstance(document, dict) and isinstance(document.get("data"), dict):  # a `put` as the stream sends it
        return _payload(document["data"], ("data",))
    if isinstance(document, dict) and isinstance(document.get("flags"), dict) and "items" not in document["flags"]:
        return _payload(document, ())
    return _rest(document, env)


def _values(document: Mapping[str, Any]) -> Imported:
    """LaunchDarkly's short form, of its file source: a value for each key, on for every context."""
    taken = sections(document)
    found = _payload({"flags": taken.flags, "segments": taken.segments}, (), form="file of values")
    found.problems += [Problem(part, f"it cannot be read: {why}", "", _AS_SENT) for part, why in taken.refused.items()]
    return found


def _objects_of(events: list[Any]) -> dict[str, dict[str, Any]]:
    """The flags and segments that a whole FDv2 transfer puts."""
    found: dict[str, dict[str, Any]] = {"flags": {}, "segments": {}}
    for each in events:
        data = each.get("data") if isinstance(each, dict) else None
        section = f"{data.get('kind')}s" if isinstance(data, dict) else ""
        if section in found and isinstance(data, dict) and each.get("event") == "put-object":
            version = {"version": data["version"]} if "version" in data else {}
            found[section][str(data.get("key"))] = _put(version, data.get("object"))
        elif section in found and isinstance(data, dict) and each.get("event") == "delete-object":
            found[section].pop(str(data.get("key")), None)
    return found


def _put(version: Mapping[str, Any], item: Any) -> Any:
    return {**version, **item} if isinstance(item, dict) else item


def _payload(payload: Mapping[str, Any], path: Path, form: str = "SDK payload") -> Imported:
    found = Imported(form=form)
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
        reason = refusal(section, item, key) if isinstance(item, dict) else "it is not an object"
        if isinstance(item, dict) and "environments" in item:
            message = f'"{key}" has its state under "environments": this is no SDK payload'
            yield Problem((*path, key), message, "every rollout in it is lost", _AS_SENT)
        elif section == "flags" and isinstance(item, dict) and _is_flattened(key, item):
            message = f'the variations of "{key}" are wrapped objects: this is a REST export, flattened by hand'
            production = "the object itself is served: it is not a boolean, so no sandbox is punched, silently"
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
    found.problems, found.warnings = export.problems, export.warnings
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


def variation_ids(document: Any) -> dict[str, list[str]]:
    """The ids of each flag's variations, in their order, where a REST export has them all; patches are written by them.

    An SDK payload has none.
    """
    found: dict[str, list[str]] = {}
    for _, item in _rest_items(document):
        if isinstance(item, dict) and isinstance(item.get("key"), str) and "environments" in item:
            variations = objects(item, "variations")
            ids = [each["_id"] for _, each in variations if isinstance(each.get("_id"), str)]
            if ids and len(ids) == len(variations):
                found[item["key"]] = ids
    return found


def references(found: Imported) -> Iterator[Problem]:
    """Prerequisites and segments that flags name and the export does not have."""
    for section, items in (("flags", found.flags), ("segments", found.segments)):
        for key, item in items.items():
            if not isinstance(item, dict):  # a problem of its own
                continue
            path = found.origins.get((section, key), ())
            for _, asked in objects(item, "prerequisites"):
                if str(asked.get("key")) not in found.flags:
                    yield _missing(path, f'"{key}" asks for the flag "{asked.get("key")}"', "export that flag too")
            for name in sorted(_segments_named(item) - found.segments.keys()):
                yield _missing(path, f'"{key}" names the segment "{name}"', "give the segments too, with --segments")


def _list(item: Mapping[str, Any], name: str) -> list[Any]:
    value = item.get(name)
    return value if isinstance(value, list) else []


def _segments_named(item: Mapping[str, Any]) -> set[str]:
    clauses = [clause for _, rule in objects(item, "rules") for _, clause in objects(rule, "clauses")]
    return {str(value) for each in clauses if each.get("op") == "segmentMatch" for value in _list(each, "values")}


def _missing(path: Path, what: str, fix: str) -> Problem:
    return Problem(path, f"{what}, which is not in the export", "it would be evaluated without it", fix)


def _cannot(path: Path, name: str, fix: str) -> Problem:
    return Problem(path, f'"{name}" cannot be carried over', "what it does would be lost", fix)


def environments(document: Any) -> list[str]:
    """The environments that a REST export has the flags' state of."""
    states = [item.get("environments") for _, item in _rest_items(document) if isinstance(item, dict)]
    return sorted({name for each in states if isinstance(each, dict) for name in each})


def environment_hint(env: str | None, document: Any) -> str | None:
    """What to say of an environment that the export does not have; None where it has it, or has none at all."""
    known = environments(document)
    if not known or env in known:
        return None
    return f"--env is needed; use one of: {', '.join(known)}" if env is None else did_you_mean(env, known)


_PAYLOAD = "import an SDK payload instead, which has it"


class _Part(NamedTuple):
    """What of a part of an export is carried over, and what is known to change no evaluation."""

    carried: tuple[str, ...]
    remarks: tuple[str, ...] = ()


_STATE = _Part(
    ("on", "salt", "version", "targets", "contextTargets", "rules", "fallthrough", "offVariation", "prerequisites",
     "trackEvents", "trackEventsFallthrough", "debugEventsUntilDate"),
    ("lastModified", "sel", "archived", "evaluation"),
)  # fmt: skip
_RULE = _Part(("variation", "rollout", "clauses", "trackEvents"), ("description", "ref"))
_SERVED = _Part(("variation", "rollout"))
_ROLLOUT = _Part(("variations", "bucketBy", "contextKind", "seed", "kind"))
_STAGED_ROLLOUT = _Part((*_ROLLOUT.carried, "experimentAllocation"))  # no SDK reads it; a stage refuses it
_ENTRY = _Part(("variation", "weight", "untracked"))
_CLAUSE = _Part(("attribute", "op", "values", "negate", "contextKind"))
_TARGET = _Part(("contextKind", "variation", "values"))
_PREREQUISITE = _Part(("key", "variation"))
_SEGMENT = _Part(
    ("key", "version", "salt", "included", "excluded", "includedContexts", "excludedContexts", "rules", "deleted"),
    ("name", "description", "tags", "creationDate", "lastModifiedDate", "generation"),
)
_SEGMENT_RULE = _Part(("clauses", "weight", "rolloutContextKind", "bucketBy"), ("description",))
_NEEDED = ("on", "salt", "version", "fallthrough", "rules")


class RestExport:
    """Converts what an export holds of one environment, and keeps the problems met on the way."""

    def __init__(self, env: str | None) -> None:
        self._env = env
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def flag(self, path: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """One flag with its state in the environment; whatever is wrong with it is in `problems`."""
        key, states = item["key"], item["environments"]
        state = states.get(self._env) if isinstance(states, dict) else None
        if not isinstance(state, dict):
            self._problem((*path, "environments"), f'"{key}" has no environment "{self._env}"', "name one with --env")
            return {}
        here = (*path, "environments", self._env or "")
        if item.get("archived") or state.get("archived"):
            message = f'"{key}" is archived: LaunchDarkly does not serve it'
            self._problem(path, message, "take it out of the export")
        missing = [name for name in _NEEDED if name not in state]
        if missing:
            message = f'"{key}" lacks {", ".join(missing)}: this is a summary'
            self._problem(here, message, f"export it with summary=0 and env={self._env}")
            return {}
        carried = self._pick(here, state, _STATE)
        return {"key": key, "variations": self._variations(path, item), **carried, **self._parts(here, state)}

    def _parts(self, path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
        targets = self._each(path, state, "targets", _TARGET)
        return {
            "targets": targets,
            "contextTargets": _with_user_targets(self._each(path, state, "contextTargets", _TARGET), targets),
            "prerequisites": self._each(path, state, "prerequisites", _PREREQUISITE),
            "rules": [self._rule((*path, "rules", i), rule, _RULE) for i, rule in objects(state, "rules")],
            "fallthrough": self._served((*path, "fallthrough"), state["fallthrough"], _SERVED),
        }

    def segment(self, path: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        """One segment; whatever is wrong with it is in `problems`."""
        key = item["key"]
        if item.get("unbounded"):
            message = f'the members of the big segment "{key}" are not in an export'
            self._problem(path, message, "list them in a segment of our own")
            return {}
        if "salt" not in item and any("weight" in rule for _, rule in objects(item, "rules")):
            message = f'"{key}" takes a share of its members, and the REST API does not export its salt'
            self._problem((*path, "rules"), message, _PAYLOAD)
        return {
            **self._pick(path, item, _SEGMENT),
            "salt": item.get("salt", ""),
            "includedContexts": self._each(path, item, "includedContexts", _TARGET),
            "excludedContexts": self._each(path, item, "excludedContexts", _TARGET),
            "rules": [self._rule((*path, "rules", i), rule, _SEGMENT_RULE) for i, rule in objects(item, "rules")],
        }

    def _variations(self, path: Path, item: Mapping[str, Any]) -> list[Any]:
        wrapped = objects(item, "variations")
        for index, each in wrapped:
            if "value" not in each:
                self._problem((*path, "variations", index), "the variation has no value", _PAYLOAD)
        if len(wrapped) != len(_list(item, "variations")):
            self._problem((*path, "variations"), "the variations are not wrapped: this is no REST export", _PAYLOAD)
        return [each.get("value") for _, each in wrapped]

    def _rule(self, path: Path, rule: Mapping[str, Any], part: _Part) -> dict[str, Any]:
        named = {"id": rule["_id"]} if "_id" in rule else {}
        return {**named, **self._served(path, rule, part), "clauses": self._each(path, rule, "clauses", _CLAUSE)}

    def _served(self, path: Path, served: Any, part: _Part) -> dict[str, Any]:
        if not isinstance(served, dict):
            return {}
        carried = self._pick(path, served, part)
        if isinstance(served.get("rollout"), dict):
            here = (*path, "rollout")
            rollout = self._as_it_stands(here, served["rollout"])
            entries = self._each(here, rollout, "variations", _ENTRY)
            part = _ROLLOUT if rollout is served["rollout"] else _STAGED_ROLLOUT
            carried["rollout"] = {**self._pick(here, rollout, part), "variations": entries}
        return carried

    def _as_it_stands(self, path: Path, rollout: Mapping[str, Any]) -> Mapping[str, Any]:
        """A guarded or progressive rollout by the weights that it has at the export."""
        allocation = rollout.get("experimentAllocation")
        kind = STAGED.get(str(allocation.get("type"))) if isinstance(allocation, dict) else None
        if kind is None:
            return rollout
        message = f"a {kind} rollout is imported as it stands at the export"
        production = (
            "LaunchDarkly moves it on by itself, and the next one re-assigns the sandboxes: no stage is foretold"
        )
        self.warnings.append(Problem(path, message, production, "rehearse a percentage rollout instead", "warning"))
        if rollout.get("bucketBy") not in {None, "", "key"}:
            self._problem((*path, "bucketBy"), f"a {kind} rollout goes by the key, not by bucketBy", _PAYLOAD)
        entries = [_tracked(entry) for _, entry in objects(rollout, "variations")]
        return {
            **rollout,
            "experimentAllocation": {"type": rollout["experimentAllocation"]["type"]},
            "variations": entries,
        }

    def _each(self, path: Path, item: Mapping[str, Any], name: str, part: _Part) -> list[dict[str, Any]]:
        return [self._pick((*path, name, index), each, part) for index, each in objects(item, name)]

    def _pick(self, path: Path, item: Mapping[str, Any], part: _Part) -> dict[str, Any]:
        for name, value in item.items():
            known = name in part.carried or name in part.remarks or name.startswith("_")
            if not known and value not in (None, False, "", [], {}):
                self._problem((*path, name), f'"{name}" cannot be carried over', _PAYLOAD)
        return {name: item[name] for name in part.carried if name in item and item[name] is not None}

    def _problem(self, path: Path, message: str, fix: str) -> None:
        self.problems.append(Problem(path, message, "what it does would be lost", fix))


def _tracked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The REST API marks with `_untracked` what an SDK payload calls `untracked`."""
    return {"untracked" if name == "_untracked" else name: each for name, each in entry.items()}


def _with_user_targets(others: list[dict[str, Any]], users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With targets of other kinds, LaunchDarkly asks those of kind user only where a place is kept for them."""
    places: list[dict[str, Any]] = [
        {"contextKind": "user", "variation": each.get("variation"), "values": []} for each in users
    ]
    return [*places, *others] if others else []
