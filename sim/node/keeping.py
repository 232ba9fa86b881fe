"""The zygote as the keeper of memory: it outlives the node, and gives the memory of dead guests to the next one."""

from __future__ import annotations

import os

from sim.node.guest_link import GuestError
from sim.node.zygote_link import ZygoteLink


class ZygoteKeeper:
    """An `engine.keeper.Keeper`. Calls block for one exchange with the zygote; raises GuestError, OSError."""

    def __init__(self, link: ZygoteLink) -> None:
        self._link = link

    def keep(self, build: str, fd: int) -> None:
        """Returns once the zygote has acknowledged it."""
        answer, _ = self._link.exchange("kept", [fd], op="keep", build=build)
        if answer.get("kept") != build or not answer.get("held"):
            raise GuestError("the zygote does not hold it: it may open no more files")

    def drop(self, build: str) -> None:
        """Returns once the zygote has let go of it."""
        self._link.exchange("dropped", op="drop", build=build)

    def kept(self) -> dict[str, int]:
        """Everything that it holds, by build: fds of the caller's own."""
        found: dict[str, int] = {}
        answer, fds = self._link.exchange("kept", op="kept")
        while (build := answer.get("kept")) is not None:
            if fds:
                found[build] = fds[0]
            answer, fds = self._link.next_answer()
        return found


def close_all(kept: dict[str, int]) -> None:
    """Of what `kept` gave."""
    for fd in kept.values():
        os.close(fd)
