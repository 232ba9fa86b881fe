"""The cache's readiness against a model: a set of published chunks and the bytes they must hold."""

from __future__ import annotations

import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache import Cache
from engine.errors import BuildFailedError
from engine.ranges import Blocks, Chunk, chunks

PAGE = 4096
SPAN = 16 * PAGE
SIZE = 8 * SPAN
DIRTY = st.sets(st.integers(0, SIZE // PAGE - 1), min_size=1, max_size=60)


def cut(dirty: set[int]) -> list[Chunk]:
    return chunks(Blocks(dirty), SIZE, PAGE, PAGE, SPAN)


def content_of(length: int) -> bytes:
    return random.Random(length).randbytes(length)


class CacheReadiness(RuleBasedStateMachine):
    """Chunks are written and published in any order while readers come; then the build is finished, or fails."""

    @initialize(dirty=DIRTY)
    def create(self, dirty: set[int]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="snapdrill-cache-"))
        self.chunks = cut(dirty)
        self.cache = Cache(self.home, "b1", self.chunks)
        self.cache.create()
        self.content = content_of(self.cache.length)
        self.written: set[int] = set()
        self.published: set[int] = set()
        self.wanted: list[int] = []
        self.ended = ""
        self.closed = False

    def chunk(self, number: int) -> Chunk:
        return self.chunks[number % len(self.chunks)]

    @precondition(lambda self: not self.ended)
    @rule(number=st.integers(0, 7))
    def write(self, number: int) -> None:
        chunk = self.chunk(number)
        end = chunk.cache_offset + chunk.length
        self.cache.write(memoryview(self.content)[chunk.cache_offset : end], chunk.cache_offset)
        self.written.add(chunk.index)

    @precondition(lambda self: not self.ended)
    @rule(number=st.integers(0, 7))
    def publish(self, number: int) -> None:
        chunk = self.chunk(number)
        if chunk.index in self.written - self.published:
            self.cache.publish(chunk)
            self.published.add(chunk.index)

    @rule(at=st.floats(0, 1, exclude_max=True), length=st.integers(1, SPAN * 2))
    def read(self, at: float, length: int) -> None:
        offset = int(at * self.cache.length)
        length = min(length, self.cache.length - offset)
        needed = [
            chunk.index
            for chunk in self.chunks
            if chunk.cache_offset < offset + length and chunk.cache_offset + chunk.length > offset
        ]
        missing = [index for index in needed if index not in self.published]
        if self.ended == "failed":
            with pytest.raises(BuildFailedError):
                self.cache.read(offset, length, 0)
        elif missing:
            with pytest.raises(TimeoutError, match=f"chunk {missing[0]} "):
                self.cache.read(offset, length, 0)
            self.wanted.append(missing[0])
        else:
            assert self.cache.read(offset, length, 0) == self.content[offset : offset + length]

    @rule()
    def take_wanted(self) -> None:
        expected = None
        while self.wanted and expected is None:
            first = self.wanted.pop(0)
            expected = None if first in self.published else first
        assert self.cache.take_wanted() == expected

    @precondition(lambda self: not self.ended and len(self.published) == len(self.chunks))
    @rule(closed=st.booleans())
    def finish(self, closed: bool) -> None:
        self.cache.finish()
        self.ended = "finished"
        if closed:
            self.cache.close()

    @precondition(lambda self: not self.ended and len(self.published) > 1)
    @rule()
    def fail(self) -> None:
        self.cache.fail(OSError("broken"))
        self.ended = "failed"

    @invariant()
    def what_is_published_is_what_the_model_says(self) -> None:
        if hasattr(self, "cache"):
            assert {chunk.index for chunk in self.chunks if self.cache._published[chunk.index]} == self.published

    @invariant()
    def only_a_finished_build_has_its_name(self) -> None:
        if hasattr(self, "cache"):
            names = {"": ["b1.partial"], "finished": ["b1"], "failed": []}[self.ended]
            assert [path.name for path in self.home.iterdir()] == names

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
            shutil.rmtree(self.home, ignore_errors=True)


TestCacheReadiness = CacheReadiness.TestCase
TestCacheReadiness.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=15, deadline=None)
@given(dirty=DIRTY, order=st.randoms(use_true_random=False), fail_after=st.none() | st.integers(0, 5))
def test_readers_on_threads_get_exact_bytes_or_the_failure_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, dirty: set[int], order: random.Random, fail_after: int | None
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), "b1", cut(dirty))
    cache.create()
    content = content_of(cache.length)
    pieces = cut(dirty)
    order.shuffle(pieces)
    ranges = [(at, order.randint(1, cache.length - at)) for at in (order.randrange(cache.length) for _ in range(6))]
    with ThreadPoolExecutor(len(ranges)) as pool:
        readers = [pool.submit(cache.read, offset, length, 20) for offset, length in ranges]
        for number, chunk in enumerate(pieces):
            if number == fail_after:
                cache.fail(OSError("broken"))
                break
            end = chunk.cache_offset + chunk.length
            cache.write(memoryview(content)[chunk.cache_offset : end], chunk.cache_offset)
            cache.publish(chunk)
        failed = fail_after is not None and fail_after < len(pieces)
        cache.close() if failed else finish_and_close(cache)
        for (offset, length), reader in zip(ranges, readers, strict=True):
            if reader.exception(20) is None:
                assert reader.result() == content[offset : offset + length]
            else:
                assert failed
                assert isinstance(reader.exception(), BuildFailedError)


def finish_and_close(cache: Cache) -> None:
    cache.finish()
    cache.close()
