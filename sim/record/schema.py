"""The ledger as a published format; foreign ledgers read strictly."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from engine.events import Event
from engine.plan import WHOLE, PunchCode, SalvageCode
from engine.reading import read_regular
from flags.catalog import did_you_mean
from flags.document import DocumentError, Mistake, Position, parse
from sim.files.faults import Kind
from sim.files.lifecycle import RefusalCode, State
from sim.files.schemas import DRAFT
from sim.files.units import show
from sim.record.ledger import EVENT_TYPES, Entry

_LINE: dict[str, Any] = {
    "t": {"type": "number", "description": "Seconds since the run began."},
    "sandbox": {
        "type": "string",
        "description": "The sandbox it belongs to; left out for events of the run or the node.",
    },
    "pause": {"type": "string", "description": "The pause or checkpoint it belongs to; left out if there is none."},
}
PATHS = ("process", "memfd", "memfd-background", "dedup", "in-place")
PUNCH_CODES = tuple(PunchCode)
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("planned", "path"): PATHS,
    ("pause_settled", "path"): PATHS,
    ("pause_settled", "outcome"): ("finished", "rolled-back", "discarded", "refused"),
    ("planned", "punch_code"): PUNCH_CODES,
    ("pause_settled", "punch_code"): PUNCH_CODES,
    ("fault_armed", "kind"): get_args(Kind),
    ("fault_fired", "kind"): get_args(Kind),
    ("pause_settled", "salvage"): (WHOLE, *SalvageCode),
    ("not_salvaged", "code"): tuple(SalvageCode),
    ("request_refused", "code"): tuple(RefusalCode),
    ("process_died", "process"): ("guest", "zygote"),
    ("process_died", "code"): ("died", "silent"),
    ("state_changed", "old"): tuple(State),
    ("state_changed", "new"): tuple(State),
}
"""Event and field: the only words that it may hold (besides null, if the field may be null)."""
_ADAPTERS: dict[type[Event], TypeAdapter[Event]] = {}


def adapter(kind: type[Event]) -> TypeAdapter[Event]:
    """The reader and schema of one kind of event; made once each."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def json_schema() -> dict[str, Any]:
    """JSON Schema of one line of a ledger (`events.jsonl`): one of the events, selected by `event`."""
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
    """The original's name of a signal (`kind`: histogram, counter, gauge, span, attribute or log), and where a ledger
    has it: an event, its field (None: that it happened), and a note on how the two differ."""

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
        "in_place=true is pause_settled with consumed=false; a background copy ends after the answer",
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
    TraceName(
        "orchestrator.sandbox.killed",
        "counter",
        "state_changed",
        "stop_reason",
        "kill_reason=request is killed; its other labels have nothing here, discarded and crashed have no label there",
    ),
    TraceName(
        "orchestrator.sandbox.checkpoint", "counter", "pause_settled", "checkpoint", "in_place=true is consumed=false"
    ),
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
"""The signals that an operator of the original has, as far as a ledger has them. The original has no signal for
chunk_published, chunk_punched, clean_pages_punched, punch_failed and condemned: a tracer must add those. Nothing here
is an upload, so its counter of failed uploads has no row."""


def trace_names() -> list[dict[str, Any]]:
    """The mapping as JSON-ready rows."""
    return [
        {"original": each.original, "kind": each.kind, "event": each.event, "field": each.field, "note": each.note}
        for each in TRACE_NAMES
    ]


_MOST_BYTES = 64 << 20
_MOST_SECONDS = 1e12
_LONGEST_LINE = 1 << 20  # characters
_START = Position(1, 1)


@dataclass(frozen=True, slots=True)
class TraceFile:
    """The events of this version, and how many events of each unknown name were left out."""

    entries: tuple[Entry, ...]
    unknown: Mapping[str, int]


class _MistakeError(Exception):
    """What is wrong with one line, and at which column."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


def read_trace(path: Path) -> TraceFile:
    """Every event of the file; DocumentError with the place of each bad line."""
    entries: list[Entry] = []
    unknown: Counter[str] = Counter()
    mistakes: list[Mistake] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            entry = _entry(line) if line.strip() else None
        except _MistakeError as mistake:
            mistakes.append(Mistake(Position(number, mistake.column), "", str(mistake)))
            continue
        if isinstance(entry, Entry):
            entries.append(entry)
        elif entry is not None:
            unknown[entry] += 1
    if not mistakes and not entries:
        what = "no event of this version" if unknown else "no event"
        mistakes.append(Mistake(Position(), "", what, "`snapdrill schema events` prints the format of a line"))
    if mistakes:
        raise DocumentError(path, mistakes)
    return TraceFile(tuple(entries), dict(unknown))


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, _MOST_BYTES).decode("utf-8-sig").split("\n")
    except OSError as error:
        raise DocumentError(path, [Mistake(Position(), "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        wrong = Mistake(Position(), "", f"not UTF-8 at byte {error.start}", "save it as UTF-8")
        raise DocumentError(path, [wrong]) from None


def _entry(line: str) -> Entry | str:
    """The entry, or the name of an event that this version does not know."""
    if len(line) > _LONGEST_LINE:
        raise _MistakeError(1, f"the line has {len(line):,} characters; {_LONGEST_LINE:,} are the most")
    content = _object(line)
    name = content.pop("event", None)
    t, sandbox, pause = content.pop("t", None), content.pop("sandbox", None), content.pop("pause", None)
    if not isinstance(name, str):
        raise _MistakeError(_column(line, "event"), "event is missing; write the event's name")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < _MOST_SECONDS:
        raise _MistakeError(_column(line, "t"), "t is missing or not a number; write the seconds since the run began")
    for key, value in (("sandbox", sandbox), ("pause", pause)):
        if value is not None and not isinstance(value, str):
            raise _MistakeError(_column(line, key), f"{key} is {show(value)}; write a name")
    if name not in EVENT_TYPES:
        return name
    return Entry(float(t), _read_event(name, content, line), sandbox, pause)


def _object(line: str) -> dict[str, Any]:
    """Columns are computed only for a line with a mistake: a ledger has many lines."""
    try:
        value = json.loads(line, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise _what_is_wrong(line) from None
    if not isinstance(value, dict):
        raise _MistakeError(1, f"a line is one object, not {show(value)}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("duplicate member")
    return content


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _what_is_wrong(line: str) -> _MistakeError:
    try:
        duplicates = parse(line).duplicates
    except json.JSONDecodeError as error:
        return _MistakeError(error.colno, f"not JSON: {error.msg}")
    if not duplicates:  # Python reads no whole number of more than 4,300 digits
        return _MistakeError(1, "a number has too many digits")
    path, position = duplicates[0]
    return _MistakeError(position.column, f'duplicate member "{path[-1]}"; keep one')


def _read_event(name: str, content: dict[str, Any], line: str) -> Event:
    kind = EVENT_TYPES[name]
    for (event, field), choices in CHOICES.items():
        word = content.get(field)
        if event == name and isinstance(word, str) and word not in choices:
            raise _MistakeError(
                _column(line, field), f'{name}: unknown {field} "{word}"; {did_you_mean(word, choices)}'
            )
    try:
        return adapter(kind).validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        known = [each.name for each in fields(kind)]
        message = f"{name}: {field}: {first['msg']}"
        if first["type"] == "unexpected_keyword_argument":
            message = f'{name} has no field "{field}"; {did_you_mean(field, known)}'
        elif first["type"] == "missing":
            message = f"{name}: {field} is missing"
        raise _MistakeError(_column(line, field), message) from None


def _column(line: str, field: str) -> int:
    try:
        return parse(line).positions.get((field,), _START).column
    except json.JSONDecodeError:  # nested deeper than its places are looked for
        return 1
