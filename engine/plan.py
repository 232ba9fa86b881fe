"""What a pause will do and why: options and facts in, a plan out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from engine.ranges import Blocks, Chunk, chunks

SEAL_WRITE, SEAL_FUTURE_WRITE = 8, 16  # fcntl(2): F_SEAL_WRITE, F_SEAL_FUTURE_WRITE


class Path(StrEnum):
    """The way a pause exports memory."""

    PROCESS = "process"
    MEMFD = "memfd"
    MEMFD_BACKGROUND = "memfd-background"
    DEDUP = "dedup"
    IN_PLACE = "in-place"


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


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What is known of the memory to pause; sizes in bytes, `seals` are F_SEAL_* bits."""

    size: int
    page_size: int
    block_size: int
    seals: int
    consumed: bool  # the pause owns the memory; borrowed memory, of a checkpoint, is never punched
    parent_finished: bool  # clean pages are safe in a finished parent build
    memfd: bool = True  # False: the memory is read out of the process


@dataclass(frozen=True, slots=True)
class PausePlan:
    """Path, pieces of work, the legality of punching with its reason, and which flags have no effect."""

    path: Path
    punch: bool
    punch_reason: str
    facts: MemoryFacts
    chunks: tuple[Chunk, ...]
    dirty: Blocks
    notes: tuple[str, ...] = ()

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


def punch_legality(options: PauseOptions, facts: MemoryFacts) -> tuple[bool, str]:
    """Whether punching is asked for and legal, and the reason in words."""
    path = path_of(options, facts)
    if not options.punch:
        return False, "memfd-punch-on-snapshot is off"
    if not facts.consumed:
        return False, "the memory is borrowed: the same guest goes on"
    if path is Path.PROCESS:
        return False, "there is no memfd to punch"
    if path is Path.DEDUP and options.inflight_serve:
        return False, "in-flight readers may still need any range of the memfd"
    if not facts.parent_finished:
        return False, "the parent build is not finished, so clean pages are nowhere but in the memfd"
    if facts.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE):
        return False, "the memfd is sealed against writing, so the kernel refuses to punch it"
    return True, "the memfd is consumed and the guest will be condemned first"


def without_effect(options: PauseOptions, facts: MemoryFacts) -> tuple[str, ...]:
    """One sentence for each flag that is set and does nothing on this path."""
    path = path_of(options, facts)
    found = []
    if options.use_memfd != facts.memfd:
        was = "with its memfd" if facts.memfd else "without a memfd"
        found.append(f"use-memfd {'on' if options.use_memfd else 'off'} has no effect: the guest was started {was}")
    if options.punch and not (legal := punch_legality(options, facts))[0]:
        found.append(f"memfd-punch-on-snapshot has no effect: {legal[1]}")
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
    elif options.inflight_serve and not punch_legality(replace(options, inflight_serve=False), facts)[0]:
        found.append("memfd-dedup-inflight-serve has no effect: it only forbids punching, which is not to be done")
    return tuple(found)


def plan(options: PauseOptions, facts: MemoryFacts, dirty: Blocks, span: int = 2 << 20) -> PausePlan:
    """Decide the path, cut the work into chunks of about `span` bytes, and judge punching.

    Raises EngineError where sizes are not multiples of one another.
    """
    legal, reason = punch_legality(options, facts)
    return PausePlan(
        path=path_of(options, facts),
        punch=legal,
        punch_reason=reason,
        facts=facts,
        chunks=tuple(chunks(dirty, facts.size, facts.block_size, facts.page_size, span)),
        dirty=dirty,
        notes=without_effect(options, facts),
    )
