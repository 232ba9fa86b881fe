"""The `run --json` document and report.json. Sizes in bytes, times in milliseconds, None where nothing applies."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import UserError
from flags.document import DocumentError, Mistake
from sim.record.verdict import ExitCode, Verdict, worst
from sim.record.view import PauseView, View
from sim.report import judgements
from sim.report.judgements import Judgement, propagation
from sim.report.late_failures import known_after

VERSION = 1
_PAUSE_FIELDS = (
    "path",
    "punch",
    "outcome",
    "dirty_bytes",
    "punched_bytes",
    "peak_over",
    "peak_ratio",
    "copier_bytes",
    "copy_ms",
    "blocked_ms",
    "cpu_seconds",
    "checkpoint",
    "consumed",
    "outcome_code",
    "read",
    "read_while_copied",
    "reader_waited_ms",
    "paced",
)


def scenario_document(view: View) -> dict[str, Any]:
    """One run as JSON-ready values: an element of the run document's `scenarios`, and report.json."""
    run = view.run
    return {
        "name": run.name if run else None,
        "seed": run.seed if run else None,
        "verdict": judgements.verdict_of(view),
        "digest": view.ended.digest if view.ended else None,
        "engine": {"mutant": run.mutant, "profile": run.profile, "mended": run.mended} if run else {},
        "host": dict(run.host) if run else {},
        "invariants": [_judged(each) for each in judgements.invariants(view)],
        "expectations": [_judged(each) for each in judgements.expectations(view)],
        "kill_switch": asdict(thrown) if (thrown := propagation(view)) else None,
        "known_after": None
        if (after := known_after(view)) is None
        else {"seconds": after, "known": "given" if after else "derived"},
        "pauses": [_pause(each) for each in view.pauses],
        "sandboxes": [
            {"name": each.name, "guest": each.guest, "state": each.state, "stop_reason": each.stop_reason}
            for each in view.sandboxes.values()
        ],
    }


def mistakes_document(error: UserError, exit_code: ExitCode) -> dict[str, Any]:
    """The `--json` document of a command that refuses what it was given: each mistake with its place in its file.

    `error` is all of it in words. What is wrong with the command line itself has no place.
    """
    found = error.mistakes if isinstance(error, DocumentError) else ()
    return {
        "version": VERSION,
        "exit_code": int(exit_code),
        "error": str(error),
        "mistakes": [mistake_document(each) for each in found],
    }


def mistake_document(mistake: Mistake) -> dict[str, Any]:
    """File, line, column, the part of the file, what is wrong there and what to do."""
    line, column = mistake.position
    return {
        "file": mistake.file,
        "line": line,
        "column": column,
        "path": mistake.path,
        "text": mistake.text,
        "hint": mistake.hint or None,
    }


def run_document(scenarios: Sequence[dict[str, Any]], exit_code: int | None = None) -> dict[str, Any]:
    """The whole `run --json` document.

    `exit_code` overrides the code of the verdicts, for an end they do not know of: a skip, an interrupt. `verdict` is
    None if the exit code stands for no verdict.
    """
    code = worst(Verdict(each["verdict"]).exit_code for each in scenarios) if exit_code is None else ExitCode(exit_code)
    verdict = code.name.lower()
    return {
        "version": VERSION,
        "verdict": verdict if verdict in set(Verdict) else None,
        "exit_code": int(code),
        "scenarios": list(scenarios),
    }


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write JSON atomically: readers see the whole document or none."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_indented(document) + "\n", encoding="utf-8")
    os.replace(partial, path)


_OUTER = 4


def _indented(value: Any, level: int = 0) -> str:
    """JSON whose outer levels have lines of their own: a pause a line. `indent=2` takes ten times as long."""
    if level == _OUTER or not value or not isinstance(value, dict | list | tuple):
        return json.dumps(value)
    if isinstance(value, dict):
        brackets, inner = "{}", [f"{_key(key)}: {_indented(each, level + 1)}" for key, each in value.items()]
    else:
        brackets, inner = "[]", [_indented(each, level + 1) for each in value]
    margin = "\n" + "  " * level
    return f"{brackets[0]}{margin}  {f',{margin}  '.join(inner)}{margin}{brackets[1]}"


def _key(key: object) -> str:
    """As JSON writes it, which makes a text of a number, of true and of null."""
    return json.dumps({key: 0}).removeprefix("{").removesuffix(": 0}")


def _judged(judgement: Judgement) -> dict[str, Any]:
    return {
        "name": judgement.name,
        "verdict": judgement.verdict,
        "checked": judgement.checked,
        "violations": list(judgement.violations),
    }


def _pause(pause: PauseView) -> dict[str, Any]:
    decision = {
        flag: {"value": each.get("value"), "reason": each.get("reason")} for flag, each in pause.decision.items()
    }
    return {
        "sandbox": pause.sandbox,
        "decision": decision,
        **{name: getattr(pause, name) for name in _PAUSE_FIELDS},
        "notes": list(pause.notes),
    }
