"""One node of a forecast in plain Python: a heap of events, a queue of those that wait for a slot."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from sim.rollout.node_events import PauseLoad

Asked = tuple[int, float, bool]
"""Which sandbox, when, and whether for a pause."""


@dataclass
class OneNode:
    """`on`: every pause punches. `began` are those that began, with their beginning and end."""

    load: PauseLoad
    on: bool
    slots: int
    paused_for: float
    until: float = math.inf
    base: float = 0.0
    held: float = 0.0
    peak: float = 0.0
    flying: int = 0
    most: int = 0
    busy: set[int] = field(default_factory=set)
    waiting: deque[tuple[int, bool]] = field(default_factory=deque)
    events: list[tuple[float, int, int, str, int, bool]] = field(default_factory=list)
    began: list[tuple[int, float, float]] = field(default_factory=list)

    def put(self, at: float, rank: int, what: str, who: int, pause: bool) -> None:
        heapq.heappush(self.events, (at, rank, len(self.events), what, who, pause))

    def run(self, members: list[int], asked: list[Asked], back: dict[int, float] | None = None) -> OneNode:
        """`back`: when those come back that are paused already."""
        away = back or {}
        self.busy |= away.keys()
        self.base = float(sum(self.load.guest[each] for each in members))
        self.base -= float(sum(self.load.freed[each] for each in away))
        self.peak = self.base
        for who, at in away.items():
            self.put(at, 1, "back", who, True)
        for who, at, pause in asked:
            self.put(at, 2, "ask", who, pause)
        while self.events and self.events[0][0] < self.until:
            at, _, _, what, who, pause = heapq.heappop(self.events)
            if what == "ask" and who not in self.busy:
                self.busy.add(who)
                self.waiting.append((who, pause))
            elif what == "end":
                self.flying -= 1
                self.held -= self.more(who, pause)
                if pause:
                    self.base -= float(self.load.freed[who])
                    self.put(at + self.paused_for, 1, "back", who, pause)
                else:
                    self.busy.remove(who)
            elif what == "back":
                self.busy.remove(who)
                self.base += float(self.load.freed[who])
                self.peak = max(self.peak, self.base + self.held)
            while self.waiting and self.flying < self.slots:
                self.begin(at, *self.waiting.popleft())
        return self

    def more(self, who: int, pause: bool) -> float:
        own = self.load.extra_on[who] if self.on else self.load.extra_off[who]
        return float(own + (0.0 if pause else self.load.guest[who]))

    def begin(self, at: float, who: int, pause: bool) -> None:
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.held += self.more(who, pause)
        self.peak = max(self.peak, self.base + self.held)
        self.began.append((who, at, at + float(self.load.seconds[who])))
        self.put(at + float(self.load.seconds[who]), 0, "end", who, pause)
