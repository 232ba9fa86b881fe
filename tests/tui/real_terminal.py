"""A program on a terminal of its own: raw bytes go in, what is drawn comes out."""

from __future__ import annotations

import fcntl
import os
import pathlib
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType
from typing import Self


class RealTerminal:
    """`arguments` are those of `snapdrill`; `drawn` is all that came out so far, escape codes included."""

    def __init__(
        self,
        *arguments: str,
        cwd: pathlib.Path,
        size: tuple[int, int] = (100, 30),
        env: dict[str, str] | None = None,
    ) -> None:
        self._arguments = arguments
        self._cwd = cwd
        self._env = {
            **os.environ,
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "XDG_CONFIG_HOME": str(cwd),
            **(env or {}),
        }
        self._size = size
        self.drawn = ""

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        self.resize(*self._size)
        command = [sys.executable, "-c", "import sys; from sim.cli import main; sys.exit(main())", *self._arguments]
        self.process = subprocess.Popen(
            command, cwd=self._cwd, env=self._env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.wait()
        finally:
            os.close(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        os.write(self._ours, data)

    def until(self, words: str, seconds: float = 50.0) -> None:
        """Read on until these are drawn after what was read before."""
        at, deadline = len(self.drawn), time.monotonic() + seconds
        while words not in self.drawn[at:]:
            assert time.monotonic() < deadline, f"waited in vain for {words!r}: {self.drawn[-3000:]!r}"
            assert self._read(deadline), f"it ended before {words!r}: {self.drawn[-3000:]!r}"

    def wait(self, seconds: float = 50.0) -> int:
        """Read on until it has ended; its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            assert time.monotonic() < deadline, f"it goes on: {self.drawn[-3000:]!r}"
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """False where the other side is gone."""
        if not select.select([self._ours], [], [], max(0.0, min(0.2, deadline - time.monotonic())))[0]:
            return True
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:
            return False
        self.drawn += data.decode(errors="replace")
        return bool(data)
