"""A run of another process, from its ledger, as it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.driver import Driver

from engine.errors import UserError
from sim.record.fold import Fold
from sim.record.folder import StoredRun
from sim.record.ledger import Follower, LedgerError
from sim.record.rollout_view import decision_of
from sim.record.view import View
from sim.tui.app import ShowApp
from sim.tui.keys import ATTACHED, Key
from sim.tui.screens.live import bindings
from sim.tui.terminal import MortalTerminal

REFUSING = "attached: another process drives this run; it can be watched, not asked"


class AttachedApp(ShowApp):
    """Watches `stored` from its first entry on; `failure` is what the ledger could not be read for, if anything."""

    KEYS: ClassVar[tuple[Key, ...]] = ATTACHED
    BINDINGS: ClassVar[list[BindingType]] = bindings(ATTACHED)

    def __init__(self, stored: StoredRun, terminal: type[Driver] = MortalTerminal) -> None:
        super().__init__(terminal)
        self.failure: UserError | None = None
        self._path = stored.path
        self._follower = Follower(stored.path, is_own=True)  # it was read within the limit; now it grows
        self._fold = Fold()
        self.live.is_judged_here = False
        self.live.moment = lambda: "over" if self.live.view.ended else "attached"
        self.live.show(self._newest, REFUSING)

    def _newest(self) -> View:
        try:
            self._fold.apply(self._follower.new_entries())
        except (LedgerError, OSError) as error:
            self.failure = UserError(f"{self._path}: {error}")
            self.exit()
        view = self._fold.view()
        if view.ended is not None and view.rollout is not None and self.live.decided is None:
            self.live.decided = decision_of(self.folder())
        return view

    def folder(self) -> Path:
        return self._path.parent

    async def action_quit(self) -> None:
        self.exit()
