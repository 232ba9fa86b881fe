"""The zygote as the keeper of memory: it outlives the node, and gives the memory of dead guests to the next one."""

from __future__ import annotations

import os

from sim.node.guest_link import GuestError
from sim.node.zygote_link import ZygoteLink, ZygoteSilentError

_PATIENCE = 2.0
"""Seconds in which the zygote must answer: the guest of a pause is frozen meanwhile."""


class ZygoteKeeper:
    """An `engine.keeper.Keeper`. Calls block for one exchange with the zygote; raises GuestError, OSError.

    Once it has not answered in time, it is asked again only when it has answered something.
    """

    def __init__(self, link: ZygoteLink) -> None:
        self._link = link

    def keep(self, build: str, fd: int) -> None:
        """Returns once the zygote has acknowledged it."""
        answer, _ = self._link.exchange([fd], _PATIENCE, op="keep", build=build)
        if not answer.get("held"):
            raise GuestError("the zygote does not hold it: it may open no more files")

    def drop(self, build: str) -> None:
        """Returns once the zygote has let go of it. One that is silent does so as soon as it goes on."""
        try:
            self._link.exchange((), _PATIENCE, op="drop", build=build)
        except ZygoteSilentError:
            self._link.send(op="drop", build=build)

    def kept(self) -> dict[str, int]:
        """Everything that it holds, by build: fds of the caller's own. What cannot be received is no less held."""
        answers = self._link.exchange_all(op="kept")
        kept = {answer["kept"]: fds[0] for answer, fds in answers if fds}
        if len(kept) < len(answers):
            close_all(kept)
            raise GuestError("what the zygote holds cannot be received: no more files may be opened here")
        return kept


def close_all(kept: dict[str, int]) -> None:
    """Of what `kept` gave."""
    for fd in kept.values():
        os.close(fd)
