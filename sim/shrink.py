"""Reduces a document that fails to the smallest one that still does: greedy, to a fixed point, under a budget of tries.

Whether a document still fails is asked of the caller, in batches, so that a pool can answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from sim.reductions import PASSES, Document, Reductions

Fails = Callable[[Sequence[Document]], Sequence[bool]]
"""Which of these documents fail in the same way; all are new to the caller."""


@dataclass
class Shrinking:
    """A shrinking under way: the smallest document so far, how many were tried, and when to give up.

    `at_a_time` documents are asked about together; the result does not depend on it where the budget suffices.
    """

    document: Document
    fails: Fails
    tries: int = 500
    at_a_time: int = 1
    is_valid: Callable[[Document], bool] = lambda _document: True
    over: Callable[[], bool] = lambda: False
    told: Callable[[Shrinking], None] = lambda _shrinking: None
    tried: int = 0
    _known: dict[str, bool] = field(default_factory=dict)

    @property
    def exhausted(self) -> bool:
        """True where the budget ended it: a smaller one may be left."""
        return self.tried >= self.tries or self.over()

    def run(self) -> Document:
        """To the fixed point: no single reduction of the result still fails. Equal inputs give equal results."""
        before = None
        while before != self.document and not self.exhausted:
            before = self.document
            for reductions in PASSES:
                self._exhaust(reductions)
        return self.document

    def _exhaust(self, reductions: Reductions) -> None:
        """Take reductions of one kind as long as one still fails; after each go on at the same place."""
        at = 0
        while (found := self._first_failing(list(reductions(self.document))[at:])) is not None:
            offset, self.document = found
            at += offset
            self.told(self)

    def _first_failing(self, candidates: Sequence[Document]) -> tuple[int, Document] | None:
        possible = ((at, each) for at, each in enumerate(candidates) if self._may_fail(each))
        while batch := list(islice(possible, self.at_a_time)):
            self._learn([each for _, each in batch if _key(each) not in self._known])
            for at, each in batch:
                if self._known.get(_key(each), False):
                    return at, each
        return None

    def _may_fail(self, document: Document) -> bool:
        """Not tried yet, or known to fail; what is not valid is never tried and costs nothing."""
        key = _key(document)
        if key not in self._known and not self.is_valid(document):
            self._known[key] = False
        return self._known.get(key, True)

    def _learn(self, new: Sequence[Document]) -> None:
        """Ask about documents, as far as the budget goes."""
        new = new[: 0 if self.over() else max(0, self.tries - self.tried)]
        if new:
            self._known.update(zip(map(_key, new), self.fails(new), strict=True))
            self.tried += len(new)
            self.told(self)


def _key(document: Document) -> str:
    return json.dumps(document)
