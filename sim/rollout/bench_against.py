"""Another program's copy, measured as ours is: docs/bench.md has the protocol."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import xxhash

from engine.errors import EngineError
from engine.ranges import SPAN
from sim.rollout.bench_host import Watch, cpu_seconds_of
from sim.rollout.bench_ways import GIB, WARM_EXTRA, Bench, BenchCase, BenchTaken, FrozenGuest, frozen_guest, known, warm

VERSION = 1
_PATIENCE = 120.0
"""Seconds in which it has to be ready, and to be done."""


@dataclass(frozen=True, slots=True)
class Against:
    """A program that copies a guest's memory; called with a case, it measures one copy."""

    program: str

    def __call__(self, bench: Bench, case: BenchCase) -> BenchTaken:
        """`seconds` is from `go` to `done`, `free_seconds` until program, guest and memfd are gone.

        Raises EngineError where it breaks the protocol, or did not copy what it was to copy.
        """
        guest = frozen_guest(known(case.layout), bench.size, case.page_size or 0)
        with guest as frozen, bench.folder(known(case.dest)) as folder:
            expected, before = _packed(frozen.memfd.fd, frozen.ranges), frozen.memfd.resident_bytes()
            warm(folder, frozen.dirty_bytes + WARM_EXTRA)
            command = [self.program]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[frozen.memfd.fd], bufsize=0
            ) as child:
                try:
                    self._say(child, _request(frozen, folder / "memfile", punch=bool(case.punch)))
                    self._hear(child, "ready")
                    with Watch(frozen.cpu_seconds + cpu_seconds_of(child.pid)) as watch:
                        begun = time.perf_counter()
                        self._say(child, "go")
                        self._hear(child, "done")
                        seconds = time.perf_counter() - begun
                        left = frozen.memfd.resident_bytes()
                        self._end(child)
                        frozen.end()
                        freed = time.perf_counter() - begun
                finally:
                    child.kill()
            self._check(frozen, folder / "memfile", expected)
            if case.punch and left > before - frozen.dirty_bytes:
                raise EngineError(f"{self.program} was to punch, and left {left} of {before} bytes in the memfd")
        copied = frozen.dirty_bytes / GIB
        figures = {"seconds": seconds, "free_seconds": freed, "gib_per_s": copied / seconds}
        return BenchTaken.by(watch, {**figures, "cpu_s_per_gib": watch.own / copied})

    def _say(self, child: subprocess.Popen[bytes], line: str) -> None:
        try:
            left = memoryview(line.encode() + b"\n")
            while left and child.stdin is not None:
                left = left[os.write(child.stdin.fileno(), left) :]
        except BrokenPipeError as error:
            raise EngineError(f"{self.program} ended before it read its input") from error

    def _hear(self, child: subprocess.Popen[bytes], word: str) -> None:
        """One short line, in time."""
        said, end = b"", time.monotonic() + _PATIENCE
        while child.stdout is not None and not said.endswith(b"\n"):
            if not select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise EngineError(f"{self.program} did not say `{word}` within {_PATIENCE:g} s")
            more = os.read(child.stdout.fileno(), 1)
            if not more or len(said) > len(word):
                break
            said += more
        if said != word.encode() + b"\n":
            raise EngineError(f"{self.program} was to say `{word}`, and said `{said.decode(errors='replace').strip()}`")

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """Its input closes: it gives back what it holds, and ends."""
        if child.stdin is not None:
            child.stdin.close()
        try:
            code = child.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{self.program} did not end within {_PATIENCE:g} s") from error
        if code:
            raise EngineError(f"{self.program} ended with exit code {code}")

    def _check(self, frozen: FrozenGuest, path: Path, expected: bytes) -> None:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                found = _packed(file.fileno(), [(0, size)])
        except OSError as error:
            raise EngineError(f"{self.program} left no copy that can be read: {error.strerror}") from error
        if size != frozen.dirty_bytes or found != expected:
            raise EngineError(f"{self.program} did not copy: {size} of {frozen.dirty_bytes} bytes, or other ones")


def _request(frozen: FrozenGuest, path: Path, *, punch: bool) -> str:
    memory = {"fd": frozen.memfd.fd, "size": frozen.memfd.size, "page_size": frozen.memfd.page_size}
    return json.dumps({"version": VERSION, **memory, "ranges": frozen.ranges, "destination": str(path), "punch": punch})


def _packed(fd: int, ranges: list[tuple[int, int]]) -> bytes:
    """The digest of these ranges, one after the other."""
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(SPAN))
    for offset, length in ranges:
        for at in range(offset, offset + length, SPAN):
            piece = buffer[: min(SPAN, offset + length - at)]
            os.preadv(fd, [piece], at)
            digest.update(piece)
    return digest.digest()
