"""The ledger as a published format: JSON Schema of a line, and what the original's telemetry is called in it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from engine.events import Event
from sim.ledger import EVENT_TYPES
from sim.sandbox import State

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_LINE: dict[str, Any] = {
    "t": {"type": "number", "description": "Seconds since the run began."},
    "sandbox": {"type": "string", "description": "Whom it belongs to; left out where it is the run's or the node's."},
    "pause": {"type": "string", "description": "The pause or checkpoint it belongs to; left out where there is none."},
}
PATHS = ("process", "memfd", "memfd-background", "dedup", "in-place")
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("planned", "path"): PATHS,
    ("pause_settled", "path"): PATHS,
    ("pause_settled", "outcome"): ("finished", "rolled-back", "discarded", "refused"),
    ("state_changed", "old"): tuple(State),
    ("state_changed", "new"): tuple(State),
}
"""Event and field: the only words that it may hold (beside null, where the field may be null)."""

_ADAPTERS: dict[type[Event], TypeAdapter[Event]] = {}


def adapter(kind: type[Event]) -> TypeAdapter[Event]:
    """The reader and schema of one kind of event; made once each."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def json_schema() -> dict[str, Any]:
    """JSON Schema of one line of a ledger (`events.jsonl`): one of the events, told apart by `event`."""
    return {
        "$schema": DRAFT,
        "title": "One line of a snapdrill ledger",
        "description": "A ledger is JSON Lines: one object a line, in the order in which things happened. "
        "Bytes and milliseconds, unless a name says otherwise.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in sorted(EVENT_TYPES)],
        "$defs": {name: _event(name, EVENT_TYPES[name]) for name in sorted(EVENT_TYPES)},
        "x-trace-names": trace_names(),
    }


def _event(name: str, kind: type[Event]) -> dict[str, Any]:
    own = adapter(kind).json_schema()
    for (event, field), choices in CHOICES.items():
        if event == name:
            may_be_null = "anyOf" in own["properties"][field]
            own["properties"][field] = {"enum": [*choices, *([None] if may_be_null else [])]}
    return {
        "type": "object",
        "description": inspect.cleandoc(kind.__doc__ or ""),
        "properties": {"event": {"const": name}, **_LINE, **own.get("properties", {})},
        "required": ["event", "t", *own.get("required", [])],
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class TraceName:
    """What the original calls something (`kind`: histogram, counter, gauge, span, attribute or log), and where a
    ledger tells it: an event, its field (None: that it happened), and what to mind in translating."""

    original: str
    kind: str
    event: str
    field: str | None
    note: str = ""


TRACE_NAMES: Sequence[TraceName] = (
    TraceName("orchestrator.sandbox.pause.duration", "histogram", "pause_returned", "blocked_ms", "until the answer"),
    TraceName(
        "orchestrator.sandbox.snapshot.process_memory.duration",
        "histogram",
        "build_finished",
        "copy_ms",
        "in_place=true is pause_settled with checkpoint; a background copy ends after the answer",
    ),
    TraceName("orchestrator.sandbox.snapshot.guest_freeze.duration", "histogram", "guest_frozen", "freeze_ms"),
    TraceName("orchestrator.sandbox.snapshot.total.bytes", "histogram", "sandbox_created", "memory", "of the memfile"),
    TraceName("orchestrator.sandbox.snapshot.diff.bytes", "histogram", "scanned", "dirty_bytes", "kind=dirty"),
    TraceName("orchestrator.sandbox.snapshot.diff.bytes", "histogram", "scanned", "empty_bytes", "kind=empty"),
    TraceName("orchestrator.sandbox.snapshot.diff.bytes", "histogram", "compared", "stored", "kind=dedup"),
    TraceName("orchestrator.sandbox.create.duration", "histogram", "guest_spawned", "spawn_ms", "sandbox.resume=false"),
    TraceName("orchestrator.sandbox.create.duration", "histogram", "resumed", "resume_ms", "sandbox.resume=true"),
    TraceName(
        "orchestrator.sandbox.execution.duration", "histogram", "guest_ended", None, "stop_reason=state_changed's"
    ),
    TraceName("orchestrator.sandbox.uffd.startup.bytes", "histogram", "resumed", "written"),
    TraceName("orchestrator.sandbox.killed", "counter", "state_changed", "stop_reason", "kill_reason is `reason`"),
    TraceName("orchestrator.sandbox.checkpoint", "counter", "pause_settled", "checkpoint", "success is `outcome`"),
    TraceName("orchestrator.snapshot.upload.failed", "counter", "copy_failed", "condemned", "failed after success"),
    TraceName("orchestrator.env.sandbox.running", "gauge", "state_changed", "new"),
    TraceName("orchestrator.sandbox.memory.allocated", "gauge", "memory_sampled", "planned"),
    TraceName("system.memory.linux.hugepages.usage", "gauge", "memory_sampled", "hugetlb"),
    TraceName("sandbox-pause", "span", "pause_returned", "blocked_ms", "begins at the pause's first event"),
    TraceName("pause-fc", "span", "guest_frozen", "freeze_ms"),
    TraceName("process-memory", "span", "build_finished", "copy_ms"),
    TraceName("export-memory-from-memfd", "span", "planned", "path", "async: memfd-background, keep_open: in-place"),
    TraceName("export-memory-from-fc", "span", "planned", "path", "process"),
    TraceName("dedup-pages", "span", "compared", "compare_ms"),
    TraceName("resume-fc-in-place", "span", "guest_thawed", None),
    TraceName("dedup.unique_pages", "attribute", "compared", "stored", "pages there, bytes here"),
    TraceName("dedup.empty_pages", "attribute", "compared", "zero", "pages there, bytes here"),
    TraceName("dedup.deduped_pages", "attribute", "compared", "equal", "pages there, bytes here"),
    TraceName("dedup.compare_ms", "attribute", "compared", "compare_ms"),
    TraceName("snapshot.diff.size", "attribute", "build_finished", "length"),
    TraceName("snapshot.metadata.build_id", "attribute", "build_finished", "build"),
    TraceName("sandbox_pause_initiated", "log", "decided", None, "with the flags' values"),
    TraceName("sandbox_pause_result", "log", "pause_settled", "outcome", "success: finished; failure: any other"),
)
"""What an operator of the original has, as far as a ledger has a place for it. The original has no signal for
chunk_published, chunk_punched, clean_pages_punched, punch_failed and condemned: a tracer must add those."""


def trace_names() -> list[dict[str, Any]]:
    """The mapping as JSON-ready rows."""
    return [
        {"original": each.original, "kind": each.kind, "event": each.event, "field": each.field, "note": each.note}
        for each in TRACE_NAMES
    ]
