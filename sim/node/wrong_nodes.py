"""Wrong engines whose fault lies outside of the acts of a pause: in the scan, the resume, the flags, the recovery, the
meter. Each makes its own node process wrong, by putting something else in the place of a function there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from engine import prepare, resume
from engine.meter import PeakMeter
from engine.snapshot import Build
from flags.context import Moment, SandboxAttributes
from flags.decision import Decision
from sim.node.sandbox import Machine


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

    def first(attributes: SandboxAttributes, moment: Moment = "pause") -> Decision:
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
        "meter-under-reports": _meter_under_reports,
    }
)
