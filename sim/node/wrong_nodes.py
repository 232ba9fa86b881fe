"""Wrong engines whose fault lies outside of the acts of a pause: in the scan, the resume, the flags, the recovery, the
meter. Each makes its own node process wrong, by putting something else in the place of a function there."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import xxhash

from engine import prepare, resume
from engine.errors import CorruptBuildError
from engine.meter import PeakMeter
from engine.snapshot import Build
from flags.catalog import Flag
from flags.context import Moment, SandboxAttributes
from flags.decision import Decision
from sim.files.lifecycle import State
from sim.node.sandbox import Machine, Sandbox

_LATE = 1.0  # seconds


def _replace(owner: object, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _hole_taken_for_clean(_node: Machine) -> None:
    _replace(prepare, "in_pages", lambda *_: None)
    _replace(prepare, "freed_unseen", lambda *_: False)


def _resume_trusts_bytes(_node: Machine) -> None:
    def read(chunks: Any, index: int) -> memoryview:
        return memoryview(chunks._effects.resume_read(chunks._source, *chunks._spans[index]))  # noqa: SLF001

    _replace(resume._Chunks, "_read", read)  # noqa: SLF001
    _replace(Build, "verify", lambda _build: None)


def _off_ignored(node: Machine) -> None:
    decide, decided = node.flags.decide, dict[SandboxAttributes, Decision]()

    def first(attributes: SandboxAttributes, moment: Moment = "pause", _flags: Sequence[Flag] = ()) -> Decision:
        return decided.setdefault(attributes, decide(attributes, moment))

    _replace(node.flags, "decide", first)


def _recovery_forgets_record(node: Machine) -> None:
    if not node.config.known:  # no node ran here before
        return
    from sim.node import recovery

    forgotten = recovery._Condemned(set(), set())  # noqa: SLF001
    _replace(recovery, "_condemned", lambda *_: forgotten)
    _replace(node.records, "holds", lambda _incarnation: False)
    _replace(node.records, "records", lambda: iter(()))


def _recovery_forgets_build(_node: Machine) -> None:
    from sim.node import recovery

    _replace(recovery, "PARTIAL", " that is nowhere")


def _recovery_takes_older_build(_node: Machine) -> None:
    from sim.node import recovery

    async def not_there(*_: object) -> str:
        return "it was not asked"

    def paused(_of: Machine, sandbox: Sandbox, *_: object, **_named: object) -> None:
        sandbox.to(State.PAUSED, "its memory is in a finished build")

    _replace(recovery, "_run_on", not_there)
    _replace(recovery, "_go_on_without", paused)


def _spill_forgotten(_node: Machine) -> None:
    from engine import cache

    _replace(cache, "remove_folder", lambda folder: shutil.rmtree(folder, ignore_errors=True))


def _spill_unnamed(_node: Machine) -> None:
    from engine import work, writing

    whole = work.finished_header
    _replace(writing, "finished_header", lambda *parts: replace(whole(*parts), spilled=()))


def _reader_looks_once(node: Any) -> None:
    """And the copy is tried again just then: what it saw as not published is punched by the time that it is read."""
    from engine.cache import Cache
    from engine.strand import Strand

    packed = Strand.packed

    def late(strand: Any, index: int) -> bytes:
        for pause in [each.pause for each in node.sandboxes.values() if each.pause is not None]:
            threading.Thread(target=pause.salvage, daemon=True).start()
        end = time.monotonic() + _LATE
        while time.monotonic() < end and not strand._cache.is_published(index):  # noqa: SLF001
            time.sleep(_LATE / 1000)
        time.sleep(_LATE / 20)
        return packed(strand, index)

    def read(chunks: Any, index: int) -> memoryview:
        expected = chunks._source.digest(index)  # noqa: SLF001
        data = chunks._effects.resume_read(chunks._source, *chunks._spans[index])  # noqa: SLF001
        if expected and xxhash.xxh3_128_digest(data) != expected:
            raise CorruptBuildError(chunks._name, f": chunk {index} does not match its digest")  # noqa: SLF001
        return memoryview(data)

    _replace(Cache, "_is_published_by_now", lambda *_: False)
    _replace(Strand, "packed", late)
    _replace(resume._Chunks, "_read", read)  # noqa: SLF001


def _keeper_never_drops(_node: Machine) -> None:
    from sim.node.keeping import ZygoteKeeper

    _replace(ZygoteKeeper, "drop", lambda *_: None)


def _keeper_not_asked(_node: Machine) -> None:
    from engine.pause import Pause

    _replace(Pause, "_keep", lambda _pause: None)


def _meter_under_reports(_node: Machine) -> None:
    def half(meter: PeakMeter) -> int | None:
        return None if meter.at_freeze is None else (meter.peak - meter.at_freeze) // 2

    _replace(PeakMeter, "peak_over", property(half))


NODES: Mapping[str, Callable[[Machine], None]] = MappingProxyType(
    {
        "hole-taken-for-clean": _hole_taken_for_clean,
        "resume-trusts-bytes": _resume_trusts_bytes,
        "off-ignored": _off_ignored,
        "recovery-forgets-record": _recovery_forgets_record,
        "recovery-forgets-build": _recovery_forgets_build,
        "recovery-takes-older-build": _recovery_takes_older_build,
        "meter-under-reports": _meter_under_reports,
        "spill-forgotten": _spill_forgotten,
        "spill-unnamed": _spill_unnamed,
        "reader-looks-once": _reader_looks_once,
        "keeper-never-drops": _keeper_never_drops,
        "keeper-not-asked": _keeper_not_asked,
    }
)
