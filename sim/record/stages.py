"""A pause as the sandbox screen draws it: its place in memory, when it reached each stage, and its pace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from engine import events as engine_events
from sim.record import events
from sim.record.ledger import Entry

Ranges = tuple[tuple[int, int], ...]
"""[start, end) in bytes, ascending, apart from each other."""

MOST_SAMPLES = 128

STAGES: dict[type, str] = {
    events.Decided: "decided",
    events.GuestFrozen: "frozen",
    engine_events.Scanned: "scanned",
    engine_events.Planned: "planned",
    engine_events.ChunkPublished: "published",
    engine_events.Condemned: "condemned",
    engine_events.CleanPagesPunched: "punched",
    engine_events.ChunkPunched: "punched",
    events.PauseReturned: "returned",
    engine_events.BuildFinished: "finished",
    engine_events.CopyFailed: "failed",
    events.GuestThawed: "thawed",
    events.PauseSettled: "settled",
}
"""The stage that the first event of a kind begins."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace set for a sandbox's copies: `factor` times as slow; held at chunk boundaries."""

    factor: float = 1.0
    held: bool = False

    @property
    def set(self) -> bool:
        """True if its copies are slowed or held."""
        return self.held or self.factor > 1


OWN_PACE = Pace()


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes of a memfd and of the cache it is copied to, at `t` seconds."""

    t: float
    source: int
    cache: int

    @property
    def sum(self) -> int:
        """Both."""
        return self.source + self.cache


@dataclass(frozen=True, slots=True)
class Track:
    """`stages`: seconds since the run began. `runs`: the scan's cells (MemoryMapped). `under`: by chunk, the span that
    a paced copier is at. `paced`: it was slowed or held, so its times are no measurement."""

    stages: dict[str, float] = field(default_factory=dict)
    runs: str = ""
    copied: Ranges = ()
    punched: Ranges = ()
    clean_punched: bool = False
    under: dict[int, tuple[int, int]] = field(default_factory=dict)
    waits_for: str = ""
    paced: bool = False
    cache_deleted: bool = False
    samples: tuple[Sample, ...] = ()


NO_TRACK = Track()


def next_track(track: Track, entry: Entry) -> Track:
    """This track with the entry applied; the same object if the entry changes nothing."""
    stage = STAGES.get(type(entry.event))
    if stage is not None and stage not in track.stages:
        track = replace(track, stages={**track.stages, stage: entry.t})
    match entry.event:
        case events.MemoryMapped(runs):
            return replace(track, runs=runs)
        case events.BoundaryReached(before, chunk, start, length):
            under = track.under if chunk is None else {**track.under, chunk: (start, start + length)}
            return replace(track, under=under, paced=True, waits_for=before)
        case engine_events.ChunkPublished() as published:
            return _published(track, published, entry.t)
        case engine_events.ChunkPunched(start=int(start), length=length):
            return replace(track, punched=joined(track.punched, start, start + length))
        case engine_events.CleanPagesPunched():
            return replace(track, clean_punched=True)
        case engine_events.CacheDeleted():
            return replace(track, cache_deleted=True)
        case engine_events.Scanned(resident_bytes=int(resident)):
            return replace(track, samples=(Sample(entry.t, resident, 0),))
        case events.PauseSettled(outcome=outcome, paced=paced):
            samples = _last(track.samples, outcome, entry.t)
            return replace(track, under={}, waits_for="", paced=track.paced or paced, samples=samples)
    return track


def _published(track: Track, published: engine_events.ChunkPublished, t: float) -> Track:
    under = {chunk: span for chunk, span in track.under.items() if chunk != published.chunk}
    samples = track.samples
    if published.source_resident is not None:
        samples = thinned((*samples, Sample(t, published.source_resident, published.cache_resident)), MOST_SAMPLES)
    start = published.start
    copied = track.copied if start is None else joined(track.copied, start, start + published.span)
    return replace(track, under=under, copied=copied, samples=samples)


def _last(samples: tuple[Sample, ...], outcome: str, t: float) -> tuple[Sample, ...]:
    """What remains after the pause: the guest of a roll-back, the cache of a finished pause, else nothing."""
    if not samples:
        return ()
    source, cache = samples[-1].source, samples[-1].cache
    return (*samples, Sample(t, source * (outcome == "rolled-back"), cache * (outcome == "finished")))


def joined(ranges: Ranges, start: int, end: int) -> Ranges:
    """The ranges and one more; those that touch become one."""
    before = tuple(each for each in ranges if each[1] < start)
    after = tuple(each for each in ranges if each[0] > end)
    touching = ranges[len(before) : len(ranges) - len(after)]
    low = min(start, *(each[0] for each in touching)) if touching else start
    high = max(end, *(each[1] for each in touching)) if touching else end
    return (*before, (low, high), *after)


def thinned(samples: tuple[Sample, ...], most: int) -> tuple[Sample, ...]:
    """At most `most`: of each two neighbours the larger sum stays, so that no peak is lost."""
    if len(samples) <= most:
        return samples
    pairs = zip(samples[::2], samples[1::2], strict=False)
    odd = samples[-1:] if len(samples) % 2 else ()
    return (*(max(pair, key=lambda each: each.sum) for pair in pairs), *odd)


_WORDS = {"d": "dirty", "m": "partly dirty", "c": "clean", "z": "zero"}


def cell_words(runs: str) -> str:
    """How many cells of each kind: `12 dirty, 100 zero`."""
    counted = Counter[str]()
    for run in runs.split():
        counted[run[-1]] += int(run[:-1]) if run[:-1].isdecimal() else 0  # a ledger made elsewhere may say anything
    return ", ".join(f"{counted[letter]:,} {word}" for letter, word in _WORDS.items() if counted[letter])
