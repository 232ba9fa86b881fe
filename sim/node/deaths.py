"""Deaths that this node did not bring about: noticed by pidfd at once, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sim.node.guest_link import Guest
from sim.record import events

Tell = Callable[[events.ProcessDied | events.VmEnded, str | None], object]
"""Records an event of a sandbox, or of none."""


class Deaths:
    """Watches guests and the zygote. Every method belongs to the node's event loop."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._watched: dict[str, int] = {}  # an incarnation, or "" for the zygote: its pidfd
        self._told: set[str] = set()
        self._over = False

    def watch_guest(self, guest: Guest, sandbox: str, state: Callable[[], str]) -> None:
        """From now on, until it is forgotten; `state` gives the state of its sandbox."""
        self._watch(guest.name, guest.process.pidfd, lambda: self.look(guest, sandbox, state()))

    def watch_zygote(self, pid: int, pidfd: int) -> None:
        """From now on, until the run ends."""
        self._watch("", pidfd, lambda: self._tell(events.ProcessDied("zygote", pid), None))

    def look(self, guest: Guest, sandbox: str, state: str) -> None:
        """Record its death, once, where it is dead by no act of this node."""
        if not self._over and guest.is_dead() and not guest.process.asked_to_die:
            self.tell(guest, sandbox, state, "died")

    def tell(self, guest: Guest, sandbox: str, state: str, code: str) -> None:
        """Record the death of a guest, once."""
        if guest.name not in self._told:
            self._told.add(guest.name)
            if guest.vm_end is not None:
                self._tell(events.VmEnded(guest.name, **guest.vm_end), sandbox)
            self._tell(events.ProcessDied("guest", guest.pid, guest.name, state, code), sandbox)

    def forget(self, name: str) -> None:
        """Its pidfd is about to be closed. Harmless where it is not watched."""
        pidfd = self._watched.pop(name, -1)
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)

    def end(self) -> None:
        """The run ends: what dies from here on was asked to."""
        self._over = True
        for name in list(self._watched):
            self.forget(name)

    def _watch(self, name: str, pidfd: int, act: Callable[[], object]) -> None:
        def died() -> None:
            self.forget(name)
            act()

        self._watched[name] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, died)
