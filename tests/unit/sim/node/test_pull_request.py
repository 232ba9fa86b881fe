"""Each weakness of the pull request alone, in the acts of one pause; with all of them mended it is the sound engine."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroaring import BitMap

from engine.cache import Cache
from engine.effects import Effects
from engine.errors import PunchRefusedError
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, PunchPermit, start_time_of
from engine.memfd import Memfd
from engine.ranges import Blocks, Chunk, chunks
from sim.files.faults import failing
from sim.node.armed_faults import ArmedFaults, Fault, Passage
from sim.node.wrong_pauses import PullRequest, PunchFatalError

PAGE = 4096
MIB = 1 << 20
SIZE = 8 * MIB
SPAN = 2 * MIB


class Wrote:
    """A tracker of a guest that wrote these blocks."""

    name = "wrote"

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def written(self, *, rearm: bool) -> Blocks | None:
        return self._blocks

    def close(self) -> None:
        """It holds nothing."""


class Bench:
    """A filled memfd of this very process, its permit, and one pull request's acts over its dirty blocks."""

    def __init__(self, folder: Path) -> None:
        fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, SIZE)
        os.pwrite(fd, b"\1" * SIZE, 0)
        self.memfd = Memfd.adopt(fd, SIZE)
        born = Incarnation("web-0.1", os.getpid(), start_time_of(os.getpid()) or 0, self.memfd.inode)
        self.guest = GuestProcess(born, os.pidfd_open(os.getpid()))
        self.permit: PunchPermit = CondemnedRecords(folder / "condemned").condemn(born, "web-0.p1")
        self.permit.is_open = True
        self.armed = ArmedFaults()

    def acts(self, *switches: str, dirty: Blocks, block: int = PAGE, asked: bool = True) -> PullRequest:
        made = PullRequest(frozenset(switches), asked, Effects(), self.armed, Passage("web-0", 1, lambda _event: None))
        made.scan(Wrote(dirty), self.guest, self.memfd, block)
        self.chunks: list[Chunk] = chunks(dirty, SIZE, block, PAGE)
        made.planned(len(self.chunks))
        return made

    def punch(self, acts: PullRequest, chunk: Chunk) -> int:
        """Resident bytes once this chunk was punched."""
        acts.punch(self.memfd, chunk.start, chunk.end - chunk.start, self.permit, chunk)
        return self.memfd.resident_bytes()

    def close(self) -> None:
        self.memfd.close()
        self.guest.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


EVERY_SECOND = BitMap(range(0, SIZE // PAGE, 2))


def test_mended_of_everything_it_frees_each_span_whole(bench: Bench) -> None:
    acts = bench.acts(dirty=EVERY_SECOND)
    assert [bench.punch(acts, chunk) for chunk in bench.chunks] == [SIZE - SPAN * n for n in (1, 2, 3, 4)]


def test_range_granular_frees_nothing_of_a_run_before_its_last_chunk(bench: Bench) -> None:
    acts = bench.acts("range-granular", dirty=BitMap(range(4)), block=SPAN)
    assert [bench.punch(acts, chunk) for chunk in bench.chunks] == [SIZE, SIZE, SIZE, 0]


def test_range_granular_counts_chunks_in_any_order(bench: Bench) -> None:
    acts = bench.acts("range-granular", dirty=BitMap([0, 1, 3]), block=SPAN)
    first, second, alone = bench.chunks
    assert [bench.punch(acts, chunk) for chunk in (second, alone, first)] == [SIZE, SIZE - SPAN, SIZE - 3 * SPAN]


def test_range_granular_is_no_weakness_of_a_scattered_guest(bench: Bench) -> None:
    acts = bench.acts("range-granular", dirty=EVERY_SECOND)
    assert [bench.punch(acts, chunk) for chunk in bench.chunks] == [SIZE - SPAN * n for n in (1, 2, 3, 4)]


def test_dirty_pages_only_leaves_clean_pages_where_they_are(bench: Bench) -> None:
    acts = bench.acts("dirty-pages-only", dirty=EVERY_SECOND)
    acts.punch(bench.memfd, 0, SIZE, bench.permit, None)
    assert bench.memfd.resident_bytes() == SIZE
    for chunk in bench.chunks:
        bench.punch(acts, chunk)
    assert bench.memfd.resident_bytes() == SIZE // 2
    assert os.pread(bench.memfd.fd, PAGE, PAGE) == b"\1" * PAGE


def test_two_mib_alignment_refuses_runs_of_small_blocks(bench: Bench) -> None:
    acts = bench.acts("two-mib-alignment", dirty=EVERY_SECOND)
    with pytest.raises(PunchRefusedError, match="2 MiB"):
        bench.punch(acts, bench.chunks[0])


def test_two_mib_alignment_passes_runs_of_huge_blocks(bench: Bench) -> None:
    acts = bench.acts("two-mib-alignment", dirty=BitMap([1]), block=SPAN)
    assert bench.punch(acts, bench.chunks[0]) == SIZE - SPAN


def test_failed_punch_fatal_raises_what_the_engine_does_not_expect(bench: Bench) -> None:
    bench.armed.arm(Fault(1, "punch", failing("EPERM"), "first", "*"))
    with pytest.raises(PunchFatalError, match="the punch failed"):
        bench.punch(bench.acts("failed-punch-fatal", dirty=EVERY_SECOND), bench.chunks[0])
    with pytest.raises(PermissionError):
        bench.punch(bench.acts(dirty=EVERY_SECOND), bench.chunks[0])


@pytest.fixture
def cache(bench: Bench, tmp_path: Path) -> Iterator[Callable[[], Cache]]:
    made: list[Cache] = []

    def create() -> Cache:
        made.append(Cache(tmp_path / f"builds-{len(made)}", "web-0.p1", bench.chunks))
        made[-1].create()
        return made[-1]

    yield create
    for each in made:
        each.close()


def test_no_preflight_finds_the_lack_of_space_at_the_last_chunk(bench: Bench, cache: Callable[[], Cache]) -> None:
    bench.armed.arm(Fault(1, "reserve", failing("ENOSPC"), "first", "*"))
    acts = bench.acts("no-preflight", dirty=EVERY_SECOND)
    writes = cache()
    acts.reserve(writes)
    for chunk in bench.chunks[:-1]:
        acts.copy_write(writes, memoryview(bytes(chunk.length)), chunk)
    with pytest.raises(OSError, match="No space left") as found:
        acts.copy_write(writes, memoryview(bytes(bench.chunks[-1].length)), bench.chunks[-1])
    assert found.value.errno == errno.ENOSPC


def test_with_a_preflight_the_lack_of_space_is_found_first(bench: Bench, cache: Callable[[], Cache]) -> None:
    bench.armed.arm(Fault(1, "reserve", failing("ENOSPC"), "first", "*"))
    acts = bench.acts(dirty=EVERY_SECOND)
    with pytest.raises(OSError, match="No space left"):
        acts.reserve(cache())


@pytest.mark.parametrize(
    ("switches", "asked", "left"),
    [(("not-gated",), True, SIZE - SPAN), (("not-gated",), False, SIZE), ((), True, SIZE)],
    ids=["flag on", "flag off", "mended"],
)
def test_not_gated_punches_without_a_permit_where_the_flag_is_on(
    bench: Bench, cache: Callable[[], Cache], switches: tuple[str, ...], asked: bool, left: int
) -> None:
    acts = bench.acts(*switches, dirty=EVERY_SECOND, asked=asked)
    writes = cache()
    for chunk in bench.chunks[:2]:
        acts.publish(writes, chunk)
    assert bench.memfd.resident_bytes() == left
