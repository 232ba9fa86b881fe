"""Flags and segments of LaunchDarkly's REST API (v2), in the form its SDKs get.

Names as in the API's reference (FeatureFlagConfig, Rule, Rollout, UserSegment). A name that starts with an underscore
is the API's own remark; any other that this module does not know may change who gets what, so it is a problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flags.document import Path
from flags.problem import Problem, objects

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
            message = f'"{key}" takes a share of its members, and the REST API does not tell its salt'
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
        if len(wrapped) != len(item.get("variations") or []):
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
            entries = self._each(here, served["rollout"], "variations", _ENTRY)
            carried["rollout"] = {**self._pick(here, served["rollout"], _ROLLOUT), "variations": entries}
        return carried

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


def _with_user_targets(others: list[dict[str, Any]], users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With targets of other kinds, LaunchDarkly asks those of kind user only where a place is kept for them."""
    places: list[dict[str, Any]] = [
        {"contextKind": "user", "variation": each.get("variation"), "values": []} for each in users
    ]
    return [*places, *others] if others else []
