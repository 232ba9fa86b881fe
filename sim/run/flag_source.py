"""The runner's side of a run's flags: it holds the source that the node's client reads, changes it, and breaks it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import UserError
from flags.catalog import flag
from flags.decode import look, sections
from flags.document import DocumentError, Mistake, Position
from flags.edit import Place, turned_on, variation_of, with_share
from flags.inline import InlineValue, Share, flag_from
from flags.torn import loads
from sim.files.flag_values import ServedFlags
from sim.files.scenario import Scenario
from sim.files.steps import Outage
from sim.run.foreign_edits import ForeignEdits, Note

if TYPE_CHECKING:  # it imports the LaunchDarkly SDK, which takes a while
    from flags.relay import Relay

FLAG_FILE = "flags.json"
EFFECTIVE_SECONDS = 35.0
"""Seconds for a change to reach the node: after a minute's outage the SDK waits up to 30 s to reconnect."""
_BEATS_PER_LEASE = 8
_LONGEST_BEAT = 0.25
"""Seconds: the second beat opens a lease, and a node that starts waits for that."""
_LASTING = frozenset({"down", "freeze", "refuse", "flap"})
"""Outages in which a change cannot be waited for."""


class Ask(Protocol):
    """Sends the node a request, and returns when it is done."""

    def __call__(self, op: str, **args: Any) -> Awaitable[None]: ...


class FlagService(Protocol):
    """The source of one run's flags."""

    def node_settings(self) -> dict[str, Any]:
        """Where a node that starts now gets its flags: fields of a NodeConfig."""

    async def set(self, key: str, value: InlineValue, ask: Ask) -> bool:
        """Change a flag; False if an outage keeps the change from the node. TimeoutError if it does not arrive."""

    async def fail(self, outage: Outage, ask: Ask) -> None: ...
    async def recover(self, ask: Ask) -> None:
        """End every fault, and wait until the node has every flag."""

    def close(self) -> None: ...


def check_source(scenario: Scenario) -> None:
    """DocumentError if the scenario's flags cannot be served at all; checked before anything starts."""
    if scenario.flag_source == "launchdarkly":
        from flags.client import SDK_KEY

        if not os.environ.get(SDK_KEY, "").strip():
            at = scenario.origin(("flags",))
            lacks = "source: launchdarkly needs an SDK key"
            key = Mistake(Position(at.line, at.column), "flags", lacks, f"set {SDK_KEY}", at.file or "")
            raise DocumentError(scenario.path, [key])


def open_service(scenario: Scenario, run_dir: Path, note: Note) -> FlagService:
    """Start what the scenario's `flags` name, in a running event loop; `note` takes edits from outside."""
    check_source(scenario)
    if scenario.flag_file is not None:
        return _FileService(scenario, scenario.flag_file, run_dir / FLAG_FILE, note)
    if isinstance(scenario.flags, ServedFlags) and scenario.flags.source == "relay":
        return _RelayService(scenario, scenario.flags)
    return _NodeService(scenario)


def _guards(scenario: Scenario) -> dict[str, Any]:
    """What a node does with what its source says, as fields of a NodeConfig."""
    return {"lease": scenario.lease, "obey_unsafe": scenario.obeys_unsafe, "contexts": scenario.contexts.written}


class _NodeService:
    """Inline values, which the node itself holds, or LaunchDarkly's own flags, which a scenario cannot break."""

    def __init__(self, scenario: Scenario) -> None:
        self._launchdarkly = scenario.flag_source == "launchdarkly"
        self._guards = _guards(scenario)
        self._flags = {key: flag_from(key, value) for key, value in scenario.flag_values.items()}

    def node_settings(self) -> dict[str, Any]:
        if self._launchdarkly:
            return {"launchdarkly": True, **self._guards}
        return {"inline_flags": self._flags, **self._guards}

    async def set(self, key: str, value: InlineValue, ask: Ask) -> bool:
        flag = flag_from(key, value)
        if self._launchdarkly:
            raise UserError("a scenario cannot change LaunchDarkly's own flags; use source: relay")
        await ask("flag", flag=flag)
        self._flags[key] = flag
        return True

    async def fail(self, outage: Outage, ask: Ask) -> None:
        raise UserError(f"inline flags cannot {outage.fault}; use source: relay")

    async def recover(self, ask: Ask) -> None:
        raise UserError("inline flags have no outage; use source: relay")

    def close(self) -> None:
        """Nothing to end."""


class _FileService:
    """A copy of the flag file, in the run folder; a torn one is like a write in place that was cut off."""

    def __init__(self, scenario: Scenario, given: Path, copy: Path, note: Note) -> None:
        self._guards = _guards(scenario)
        self._copy = copy
        self._whole: bytes | None = None
        self._given: Mapping[str, Any] = sections(loads(given, look(given))).flags
        self._edited: dict[str, dict[str, Any]] = {}
        shutil.copyfile(given, copy)
        self._edits = ForeignEdits(copy, note)

    def node_settings(self) -> dict[str, Any]:
        return {"flag_file": str(self._copy), **self._guards}

    async def set(self, key: str, value: InlineValue, ask: Ask) -> bool:
        if self._whole is not None:
            raise UserError("the flag file is torn; put `outage: {fault: recover}` before this change")
        with self._edits.own_change():
            await ask("flag", flag=self._changed(key, value))
        return True

    def _changed(self, key: str, value: InlineValue) -> dict[str, Any]:
        """A share edits the flag as it stands; the safe value turns the given flag off. Else a flag of our own."""
        if isinstance(value, Share):
            known = self._edited.get(key) or self._given.get(key)
            if known is None:
                raise UserError(f"the flag file has no {key} to edit")
            place = Place(value.rule, value.by)
            self._edited[key] = with_share(turned_on({"key": key, **known}), True, value.percent, place)
            return self._edited[key]
        if key in self._given and value is flag(key).safe:
            known = {"key": key, **self._given[key], **self._edited.get(key, {})}
            return {**known, "on": False, "offVariation": variation_of(known, value)}
        return flag_from(key, value)

    async def fail(self, outage: Outage, ask: Ask) -> None:
        whole = self._whole or self._copy.read_bytes()
        self._whole = whole
        with self._edits.own_change():
            self._copy.write_bytes(whole[: int(len(whole) * outage.keep / 100)])
        await ask("refresh_flags")

    async def recover(self, ask: Ask) -> None:
        if self._whole is not None:
            whole, self._whole = self._whole, None
            with self._edits.own_change():
                self._copy.write_bytes(whole)
        await ask("refresh_flags")

    def close(self) -> None:
        """The copy stays in the run folder."""
        self._edits.close()


class _RelayService:
    """A flag service on this machine that outlives the node; it can be broken in every way that `Outage` names."""

    def __init__(self, scenario: Scenario, flags: ServedFlags) -> None:
        from flags.relay import Relay, beat

        self._guards = _guards(scenario)
        self._relay = Relay({})
        if flags.start == "down":
            self._relay.down()
        self._lasting = flags.start == "down"
        self._versions: dict[str, int | None] = {
            key: self._relay.set(flag_from(key, value)) for key, value in flags.values.items()
        }
        if scenario.lease is not None:
            beat(self._relay, min(scenario.lease / _BEATS_PER_LEASE, _LONGEST_BEAT))

    def node_settings(self) -> dict[str, Any]:
        return {"relay": self._relay.uri, **self._guards}

    async def set(self, key: str, value: InlineValue, ask: Ask) -> bool:
        self._versions[key] = self._relay.set(flag_from(key, value))
        return await self._reached([key], ask)

    async def fail(self, outage: Outage, ask: Ask) -> None:
        self._lasting = self._lasting or outage.fault in _LASTING
        await asyncio.to_thread(_break, self._relay, outage)
        if outage.flag is not None:
            self._versions[outage.flag] = None
            await self._reached([outage.flag], ask)

    async def recover(self, ask: Ask) -> None:
        await asyncio.to_thread(self._relay.recover)
        self._lasting = False
        await self._reached(list(self._versions), ask)

    async def _reached(self, keys: list[str], ask: Ask) -> bool:
        if self._lasting:
            return False
        versions = {key: self._versions[key] for key in keys}
        async with asyncio.timeout(EFFECTIVE_SECONDS):
            await ask("await_flags", versions=versions, seconds=EFFECTIVE_SECONDS)
        return True

    def close(self) -> None:
        self._relay.stop()


def _break(relay: Relay, outage: Outage) -> None:
    acts: Mapping[str, Callable[[], object]] = {
        "down": relay.down,
        "drop": relay.drop,
        "freeze": relay.freeze,
        "refuse": lambda: relay.refuse(outage.status),
        "slow": lambda: relay.slow(outage.delay),
        "malformed": relay.malformed,
        "flap": lambda: relay.flap(outage.every),
        "delete": lambda: relay.delete(outage.flag or ""),
    }
    acts[outage.fault]()
