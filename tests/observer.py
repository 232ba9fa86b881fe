"""An observer of a run that uses no rule and nothing of the engine: signals at random moments, and what came of them.

It reads the ledger as JSON, /proc, and the guests' memory; what a page must hold it knows from the oracle. `disturb`
gives what it saw beside what the run said: where the two disagree, one of them is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sim.record.oracle import PAGE, content, key_of
from tests.command_server import Command

SEED, MEMORY, THREADS = 11, 2 << 20, 2
SCENARIO = f"""\
version: 1
name: observed
seed: {SEED}
fleet:
  - {{name: web, count: 2, memory: 2MiB, guest: GUEST,
     workload: {{dirty: 60%, pattern: scattered, threads: 2, heartbeat: 1ms}}}}
flags: {{memfd-punch-on-snapshot: true, memfd-background-copy: BACKGROUND}}
steps:
  - tick: 2
  - inject: {{fault: copy.write, delay: 15ms, at: last}}
  - pause: {{}}
  - resume: {{}}
  - tick: 1
  - checkpoint: {{sandboxes: web-1}}
  - pause: {{sandboxes: web-0}}
  - resume: {{}}
  - wait: 400ms
"""
TARGETS = ("runner", "node", "zygote", "guest")
SIGNALS = (signal.SIGKILL, signal.SIGCONT, signal.SIGSTOP)
GUESTS = ("process", "auto")  # auto: a virtual machine where there can be one
LINES = 110  # about as many as the ledger has before the last wait
_MOST = 100.0  # seconds


@dataclass
class Watched:
    """One guest: fds of its memory and side memory, held from its birth to the last look."""

    name: str
    pid: int
    memory: int
    side: int
    pages: bytes = b""
    generations: list[int] = field(default_factory=list)
    beat: int = 0
    alive: bool = False

    def look(self) -> None:
        """The last one: keep what there is, and give the fds back, or the run would count them as leaked."""
        self.alive = is_alive(self.pid)
        side = os.pread(self.side, os.fstat(self.side).st_size, 0)
        self.generations = [int.from_bytes(side[at : at + 4], sys.byteorder) for at in range(0, MEMORY // PAGE * 4, 4)]
        self.beat = int.from_bytes(side[-4:], "little")
        self.pages = os.pread(self.memory, MEMORY, 0)
        self.close()

    def close(self) -> None:
        for fd in (self.memory, self.side):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.memory = self.side = -1

    def wrong_pages(self, generations: list[int]) -> int:
        """Pages that do not hold what these generations say."""
        key = key_of(SEED, self.name.rpartition(".")[0])
        return sum(
            self.pages[page * PAGE : (page + 1) * PAGE] != content(key, page, each)
            for page, each in enumerate(generations)
        )


@dataclass
class Seen:
    """One disturbed run. `hit`: the target was alive when the signal was sent."""

    number: int
    target: str
    sent: signal.Signals
    victim: str = ""
    pid: int = 0
    hit: bool = False
    code: int = 0
    output: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    guests: dict[str, Watched] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> Iterator[dict[str, Any]]:
        return (each for each in self.lines if each["event"] in kinds)

    # -- what the observer saw

    def wrong(self) -> list[str]:
        """Guests that ran or lived after their memory was freed, and memory that is not what it must be."""
        frozen = {each["pause"]: each for each in self.of_kind("guest_frozen")}
        punched = {each["pause"] for each in self.of_kind("chunk_punched", "clean_pages_punched")}
        freed = {frozen[pause]["incarnation"]: frozen[pause]["beat"] for pause in punched if pause in frozen}
        found = []
        for name, guest in self.guests.items():
            if not guest.pages:
                continue
            if name in freed:
                found += [f"{name} ran on"] if guest.beat != freed[name] else []
                found += [f"{name} is alive"] if guest.alive else []
            elif (lost := guest.wrong_pages(guest.generations)) > (THREADS if self.victim == name else 0):
                found.append(f"{name}: {lost} pages are not what it wrote")
        return found + list(self._resumed_wrong())

    def _resumed_wrong(self) -> Iterator[str]:
        """The last incarnation that never ticked holds what the one before held."""
        ticks = [at for at, each in enumerate(self.lines) if each["event"] == "ticked"]
        for at, each in enumerate(self.lines):
            if each["event"] != "resumed" or any(tick > at for tick in ticks):
                continue
            before = self.guests.get(f"{each['sandbox']}.{int(each['incarnation'].rpartition('.')[2]) - 1}")
            after = self.guests.get(each["incarnation"])
            if before is None or after is None or not (before.pages and after.pages) or self.victim == after.name:
                continue
            if (lost := after.wrong_pages(before.generations)) > 0:
                yield f"{after.name}: {lost} pages are not what was paused"

    def unnamed_death(self) -> bool:
        """We killed what was neither condemned nor ended, and the run held without a word about it."""
        if not self.hit or self.sent is not signal.SIGKILL or self.code != 0:
            return False
        text = json.dumps([each for each in self.lines if each["event"] in {"process_died", "node_crashed"}])
        if self.target != "guest":
            return f": {self.pid}" not in text
        frozen = {each["pause"]: each["incarnation"] for each in self.of_kind("guest_frozen")}
        condemned = {frozen.get(each["pause"]) for each in self.of_kind("condemned")}
        return self.victim not in condemned

    def disagreement(self) -> str:
        """Why the run and the observer cannot both be right; empty where they agree."""
        if self.target == "runner" and self.sent is signal.SIGKILL and self.hit:
            return f"processes are left: {self.left}" if self.left else ""
        wrong = self.wrong()
        if self.left:
            return f"processes are left: {self.left}"
        if self.code not in {0, 1, 3}:
            return f"the run ended with {self.code}"
        if wrong and self.code == 0:
            return f"it held, and {wrong[0]}"
        if not wrong and self.code == 1:
            return "it is violated, and the observer saw nothing wrong"
        return f"it held, and does not name that {self.victim} was killed" if self.unnamed_death() else ""

    def kind(self) -> str:
        """For the count."""
        if self.target == "runner" and self.sent is signal.SIGKILL and self.hit:
            return "runner killed, nothing left"
        said = {0: "held", 1: "violated", 3: "inconclusive, named"}.get(self.code, str(self.code))
        outcomes = {each["outcome"] for each in self.of_kind("pause_settled")} - {"finished"}
        return said + (f" ({', '.join(sorted(outcomes))})" if outcomes else "")


def is_alive(pid: int) -> bool:
    """False for a zombie too."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def disturb(number: int, folder: pathlib.Path, mutant: str | None = None, kind: str | None = None) -> Seen:
    """Run the scenario, by a wrong engine if one is named, send one signal at a moment that `number` draws, and look.

    The number gives target and signal as well: twelve in a row have each pair once, and the next twelve each with the
    other kind of guest (unless `kind` is given).
    """
    drawn = random.Random(number)
    seen = Seen(number, TARGETS[number % 4], SIGNALS[number // 4 % 3])
    place = folder / str(number)
    place.mkdir()
    path = place / "observed.yaml"
    text = SCENARIO.replace("BACKGROUND", str(bool(drawn.getrandbits(1))).lower())
    text = text.replace("GUEST", kind or GUESTS[(number + number // 12) % 2])
    path.write_text(text + (f"engine: {{mutant: {mutant}}}\n" if mutant else ""), encoding="utf-8")
    process = _snapdrill(place, "run", str(path), "--runs-dir", str(place / "runs"))
    pids = {"runner": process.pid}
    after, late, which = drawn.randrange(6, LINES), drawn.uniform(0, 4e-3), drawn.random()
    sent = looked = False
    ledger, size, end = None, 0, time.monotonic() + _MOST
    while process.poll() is None and time.monotonic() < end:
        ledger = ledger or next(place.glob("runs/observed/[0-9]*/events.jsonl"), None)
        size = _follow(seen, ledger, size, pids)
        waiting = any(each["event"] == "step_started" and each["step"] == "wait" for each in seen.lines)
        if not sent and (len(seen.lines) >= after or waiting):
            time.sleep(late)
            sent = _send(seen, pids, which)
        if not looked and sent and (waiting or not is_alive(pids.get("node", 0))):
            looked = True
            for guest in seen.guests.values():
                guest.look()
        time.sleep(2e-3)
    for guest in seen.guests.values():
        guest.close()
    if process.poll() is None:
        process.kill()
    seen.output = process.communicate()[0]
    seen.code = process.returncode
    _follow(seen, ledger, size, pids)
    seen.left = _left(pids, seen)
    if seen.code < 0:  # the runner was killed: nobody has removed the folder of its sockets
        cleaning = _snapdrill(place, "clean", "--runs-dir", str(place / "runs"))
        printed = cleaning.communicate()[0]
        assert cleaning.returncode == 0, printed
    return seen


def _snapdrill(place: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return Command(arguments, cwd=place, env=os.environ, **pipes)


def _follow(seen: Seen, ledger: pathlib.Path | None, size: int, pids: dict[str, int]) -> int:
    """Read whole lines that are new; hold on to guests that they report."""
    if ledger is None:
        return 0
    data = ledger.read_bytes()[size:]
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.splitlines():
        with contextlib.suppress(ValueError):
            seen.lines.append(found := json.loads(line))
            if found["event"] == "node_started":
                pids.update(node=found["pid"], zygote=found["zygote_pid"])
            elif found["event"] == "guest_spawned":
                folder = f"/proc/{found['pid']}/fd"
                with contextlib.suppress(OSError):
                    memory = os.open(f"{folder}/{found['memfd_fd']}", os.O_RDONLY)
                    side = os.open(f"{folder}/{found['side_fd']}", os.O_RDONLY)
                    name = found["incarnation"]
                    seen.guests[name] = Watched(name, found["pid"], memory, side)
    return size + len(whole)


def _send(seen: Seen, pids: dict[str, int], which: float) -> bool:
    """The signal, and for a stop its end after a while; False where there is no such process yet."""
    if seen.target == "guest":
        alive = [each for each in seen.guests.values() if is_alive(each.pid)]
        if not alive:
            return False
        chosen = alive[int(which * len(alive))]
        seen.victim, seen.pid = chosen.name, chosen.pid
    elif seen.target in pids:
        seen.victim, seen.pid = seen.target, pids[seen.target]
    else:
        return False
    seen.hit = is_alive(seen.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(seen.pid, seen.sent)
        if seen.sent is signal.SIGSTOP:
            time.sleep(0.03)
            os.kill(seen.pid, signal.SIGCONT)
    return True


def _left(pids: dict[str, int], seen: Seen) -> list[int]:
    """Processes of the run that are still there 10 s after its end."""
    ours = {*pids.values(), *(each.pid for each in seen.guests.values())}
    end = time.monotonic() + 10
    while alive := [pid for pid in ours if is_alive(pid)]:
        if time.monotonic() > end:
            return alive
        time.sleep(0.01)
    return []
