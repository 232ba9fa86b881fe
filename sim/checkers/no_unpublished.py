"""`no_unpublished`: nothing is freed before the cache's readers may have it, no build is named before it is whole."""

from __future__ import annotations

import os
from typing import Any

from engine.cache import PARTIAL
from engine.errors import EngineError
from engine.snapshot import Build
from sim.checkers.evidence import Evidence, violation
from sim.trace.no_unpublished import freed_too_early


class NoUnpublished:
    """At each chunk's publishing, what st_blocks says is gone must be clean pages or chunks published before.

    And no build has its final name before it is whole.
    """

    name = "no_unpublished"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()
        self._whole: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        self._look_for_unfinished(evidence)
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done or not pause.published:
                continue
            self._done.add(pause.id)
            self.checked += 1
            reason = freed_too_early(evidence.of_pause(pause.id))
            if reason is not None:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def _look_for_unfinished(self, evidence: Evidence) -> None:
        """A build that has its final name is there to be read: all of it. Each is looked at once."""
        names = os.listdir(evidence.builds) if evidence.builds.is_dir() else []
        new = {each for each in names if not each.endswith(PARTIAL)} - self._whole
        for name in new - evidence.damaged() if new else ():
            try:
                Build.open(evidence.builds, name).close()
            except EngineError as error:
                # A recovering node deletes what nobody was told of.
                if (evidence.builds / name).exists() and name not in evidence.damaged_by_now():
                    reason = f"a reader finds an unfinished build: {error}"
                    self.violations.append(violation(name.rpartition(".")[0], reason, pause=name))
        self._whole |= new

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""
