"""What a pause will do and why: options and facts in, a plan out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.linux import SEAL_FUTURE_WRITE, SEAL_WRITE
from engine.ranges import Blocks, Chunk, chunks, clean_page_runs


class Path(StrEnum):
    """The way a pause exports memory (facts of the original: five, of which these two are built)."""

    MEMFD = "memfd"
    MEMFD_BACKGROUND = "memfd-background"


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


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What is known of the memory to pause; sizes in bytes, `seals` are F_SEAL_* bits."""

    size: int
    page_size: int
    block_size: int
    seals: int
    consumed: bool  # the pause owns the memfd; borrowed memory is never punched
    parent_finished: bool  # clean pages are safe in a finished, pinned parent build


@dataclass(frozen=True, slots=True)
class PausePlan:
    """Path, pieces of work and the legality of punching with its reason."""

    path: Path
    punch: bool
    punch_reason: str
    facts: MemoryFacts
    chunks: tuple[Chunk, ...]
    clean_pages: tuple[tuple[int, int], ...]  # (offset, length) in bytes, punched once condemned
    dirty_bytes: int

    @property
    def background(self) -> bool:
        """True where the pause returns before its copy ends."""
        return self.path is Path.MEMFD_BACKGROUND

    @property
    def condemns_early(self) -> bool:
        """True where the incarnation is condemned after chunk 0: it will be punched, or success is answered first."""
        return self.punch or self.background


def punch_legality(options: PauseOptions, facts: MemoryFacts) -> tuple[bool, str]:
    """Whether punching is asked for and legal, and the reason in words."""
    if not options.punch:
        return False, "memfd-punch-on-snapshot is off"
    if not facts.consumed:
        return False, "the memfd is borrowed: the same guest goes on"
    if not facts.parent_finished:
        return False, "the parent build is not finished, so clean pages are nowhere but in the memfd"
    if facts.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE):
        return False, "the memfd is sealed against writing, so the kernel refuses to punch it"
    return True, "the memfd is consumed and the guest will be condemned first"


def plan(options: PauseOptions, facts: MemoryFacts, dirty: Blocks, span: int = 2 << 20) -> PausePlan:
    """Decide the path, cut the work into chunks of about `span` bytes, and judge punching.

    Raises EngineError where sizes are not multiples of one another.
    """
    legal, reason = punch_legality(options, facts)
    path = Path.MEMFD_BACKGROUND if options.background_copy else Path.MEMFD
    clean = clean_page_runs(dirty, facts.size, facts.block_size, facts.page_size) if legal else []
    return PausePlan(
        path=path,
        punch=legal,
        punch_reason=reason,
        facts=facts,
        chunks=tuple(chunks(dirty, facts.size, facts.block_size, facts.page_size, span)),
        clean_pages=tuple(clean),
        dirty_bytes=len(dirty) * facts.block_size,
    )
