"""A run that is over, read back from its folder: its ledger, and the view that it folds to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.errors import UserError
from sim.ledger import EVENTS_FILE, Entry, LedgerError, read
from sim.view import Fold, View

SCENARIO_FILE = "scenario.yaml"


@dataclass(frozen=True)
class StoredRun:
    """`path` is the ledger, `entries` all of it."""

    path: Path
    entries: Sequence[Entry]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.path.parent

    @property
    def scenario_file(self) -> Path:
        """The scenario as it was run, kept beside the ledger."""
        return self.folder / SCENARIO_FILE

    @cached_property
    def view(self) -> View:
        """The whole ledger, folded."""
        return self.view_at(None)

    def view_at(self, t: float | None) -> View:
        """What was known `t` seconds after the run began; None for its end."""
        fold = Fold()
        fold.apply(entry for entry in self.entries if t is None or entry.t <= t)
        return fold.view()


def events_file(run: Path) -> Path:
    """The ledger that RUN means: a run folder, a folder with a `latest` link, or the file; UserError where none is."""
    try:
        for path in (run, run / EVENTS_FILE, run / "latest" / EVENTS_FILE):
            if path.is_file():
                return path
    except OSError as error:
        raise UserError(f"{run}: cannot be read: {error.strerror}") from None
    raise UserError(f"{run}: no {EVENTS_FILE} there; give a run folder such as runs/demo/latest")


def open_run(run: Path) -> StoredRun:
    """Read a run back; UserError naming what cannot be read."""
    path = events_file(run)
    try:
        entries = read(path)
    except LedgerError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not entries:
        raise UserError(f"{path}: it is empty: that run did not begin; give one that did")
    return StoredRun(path, entries)
