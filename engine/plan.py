"""What a pause will do and why: options and facts in, a plan out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from engine.ranges import Blocks, Chunk, chunks

SEAL_WRITE, SEAL_FUTURE_WRITE = 8, 16  # fcntl(2): F_SEAL_WRITE, F_SEAL_FUTURE_WRITE


class Path(StrEnum):
    """The way a pause exports memory."""

    PROCESS = "process"
    MEMFD = "memfd"
    MEMFD_BACKGROUND = "memfd-background"
    DEDUP = "dedup"
    IN_PLACE = "in-place"


class SalvageCode(StrEnum):
    """Why a failed copy cannot be salvaged."""

    TORN = "torn"
    LIVES = "guest-lives"
    NO_MEMFD = "no-memfd"
    CORRUPT = "corrupt-chunk"
    INTERRUPTED = "interrupted"
    NOT_KEPT = "not-kept"
    LOST = "lost"
    NO_RECORDS = "no-records"
    NOT_COMPLETED = "not-completed"
    GIVEN_UP = "given-up"


WHOLE = "whole"
"""In place of a `SalvageCode`: the failed copy was completed."""


class PunchCode(StrEnum):
    """Why a pause punches (`legal`), or does not."""

    LEGAL = "legal"
    OFF = "off"
    BORROWED = "borrowed"
    NO_MEMFD = "no-memfd"
    READERS = "readers"
    PARENT_UNFINISHED = "parent-unfinished"
    SEALED = "sealed"


PUNCH_REASONS: Mapping[PunchCode, str] = MappingProxyType(
    {
        PunchCode.LEGAL: "the memfd is consumed and the guest will be condemned first",
        PunchCode.OFF: "memfd-punch-on-snapshot is off",
        PunchCode.BORROWED: "the memory is borrowed: the same guest goes on",
        PunchCode.NO_MEMFD: "there is no memfd to punch",
        PunchCode.READERS: "in-flight readers may still need any range of the memfd",
        PunchCode.PARENT_UNFINISHED: "the parent build is not finished, so clean pages are nowhere but in the memfd",
        PunchCode.SEALED: "the memfd is sealed against writing, so the kernel refuses to punch it",
    }
)


@dataclass(frozen=True, slots=True)
class DedupOptions:
    """Whether pages equal to the parent are left out; `ignored` names settings that were given and have no effect."""

    enabled: bool = False
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PauseOptions:
    """What the flags ask for; the plan decides what is legal."""

    use_memfd: bool = True
    background_copy: bool = True
    punch: bool = False
    dedup: DedupOptions = DedupOptions()
    inflight_serve: bool = False
    verify: bool = False  # compare what is clean with the parent, before anything is punched
    salvage: bool = False  # a copy that fails past the condemnation keeps the memory, to be completed later


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What is known of the memory to pause; sizes in bytes, `seals` are F_SEAL_* bits."""

    size: int
    page_size: int
    block_size: int
    seals: int
    consumed: bool  # the pause owns the memory; borrowed memory, of a checkpoint in place, is never punched
    parent_finished: bool  # clean pages are safe in a finished parent build
    memfd: bool = True  # False: the memory is read out of the process


@dataclass(frozen=True, slots=True)
class PausePlan:
    """Path, pieces of work, the legality of punching with its reason, and which flags have no effect."""

    path: Path
    punch_code: PunchCode
    facts: MemoryFacts
    chunks: tuple[Chunk, ...]
    dirty: Blocks
    notes: tuple[str, ...] = ()

    @property
    def punch(self) -> bool:
        """Whether what is copied is freed from the memfd."""
        return self.punch_code is PunchCode.LEGAL

    @property
    def punch_reason(self) -> str:
        """Why, in words."""
        return PUNCH_REASONS[self.punch_code]

    @property
    def dirty_bytes(self) -> int:
        """What is copied."""
        return len(self.dirty) * self.facts.block_size

    def clean_pages(self) -> list[tuple[int, int]]:
        """(offset, length) in bytes between the chunks' spans: whole pages that the snapshot does not owe.

        Clean pages inside a chunk's span are freed with it: one large punch instead of many small ones.
        """
        if not self.punch:
            return []
        starts = [0, *(chunk.end for chunk in self.chunks)]
        ends = [*(chunk.start for chunk in self.chunks), self.facts.size]
        return [(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]

    @property
    def background(self) -> bool:
        """True where the pause returns before its copy ends."""
        return self.path in {Path.MEMFD_BACKGROUND, Path.DEDUP}

    @property
    def condemns_early(self) -> bool:
        """True where the incarnation is condemned after chunk 0: it will be punched, or success is answered first."""
        return self.punch or self.background


def path_of(options: PauseOptions, facts: MemoryFacts) -> Path:
    """The path that these options take."""
    if not facts.memfd:
        return Path.PROCESS
    if not facts.consumed:
        return Path.IN_PLACE
    if options.dedup.enabled:
        return Path.DEDUP
    return Path.MEMFD_BACKGROUND if options.background_copy else Path.MEMFD


def punch_legality(options: PauseOptions, facts: MemoryFacts) -> PunchCode:
    """Whether punching is asked for and legal (`PunchCode.LEGAL`), else the first reason against it."""
    path = path_of(options, facts)
    if not options.punch:
        return PunchCode.OFF
    if not facts.consumed:
        return PunchCode.BORROWED
    if path is Path.PROCESS:
        return PunchCode.NO_MEMFD
    if path is Path.DEDUP and options.inflight_serve:
        return PunchCode.READERS
    if not facts.parent_finished:
        return PunchCode.PARENT_UNFINISHED
    if facts.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE):
        return PunchCode.SEALED
    return PunchCode.LEGAL


def without_effect(options: PauseOptions, facts: MemoryFacts) -> tuple[str, ...]:
    """One sentence for each flag that is set and does nothing on this path."""
    path = path_of(options, facts)
    found = []
    if options.use_memfd != facts.memfd:
        was = "with its memfd" if facts.memfd else "without a memfd"
        found.append(f"use-memfd {'on' if options.use_memfd else 'off'} has no effect: the guest was started {was}")
    if options.punch and (code := punch_legality(options, facts)) is not PunchCode.LEGAL:
        found.append(f"memfd-punch-on-snapshot has no effect: {PUNCH_REASONS[code]}")
    if options.background_copy and path in {Path.PROCESS, Path.IN_PLACE}:
        found.append(f"memfd-background-copy has no effect: the {path} path answers when its copy is done")
    if not options.background_copy and path is Path.DEDUP:
        found.append("memfd-background-copy off has no effect: the dedup path answers after the compare")
    if options.dedup.enabled and path is not Path.DEDUP:
        found.append(f"memfile-diff-dedup has no effect on the {path} path")
    if options.dedup.enabled:
        found += [f"memfile-diff-dedup: {name} is accepted and has no effect" for name in options.dedup.ignored]
    if options.inflight_serve and path is not Path.DEDUP:
        found.append(f"memfd-dedup-inflight-serve has no effect on the {path} path")
    elif options.inflight_serve and punch_legality(replace(options, inflight_serve=False), facts) != PunchCode.LEGAL:
        found.append("memfd-dedup-inflight-serve has no effect: it only forbids punching, which is not to be done")
    return tuple(found)


def plan(options: PauseOptions, facts: MemoryFacts, dirty: Blocks, span: int = 2 << 20) -> PausePlan:
    """Decide the path, cut the work into chunks of about `span` bytes, and judge punching.

    Raises EngineError where sizes are not multiples of one another.
    """
    return PausePlan(
        path=path_of(options, facts),
        punch_code=punch_legality(options, facts),
        facts=facts,
        chunks=tuple(chunks(dirty, facts.size, facts.block_size, facts.page_size, span)),
        dirty=dirty,
        notes=without_effect(options, facts),
    )
