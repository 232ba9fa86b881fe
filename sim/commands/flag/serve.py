"""Serve a flag file as LaunchDarkly would, on this machine, and misbehave on command.

Follows FILE; a bad edit leaves the last good flags in force and is reported. Point an SDK's stream, base and events URI
at the printed address; any SDK key is taken, and nothing leaves this machine. Commands are lines on standard input:
type `help` for them, `quit` or Ctrl-C to end. Where the input ends, serving goes on.

Example: snapdrill flags serve flags.json --port 8030
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from engine.errors import UserError
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.lease import Lease
    from flags.relay import Relay

HELP = """\
drop             end every stream; clients connect again
flap SECONDS     drop every so many seconds; 0: no more
freeze | thaw    half-open: connections stay, nothing is sent | send again
down | up        refuse connections | listen again
status CODE      answer everything with that HTTP status, such as 401 or 503; 0: no more
slow SECONDS     send everything so much later; 0: no more
malformed        send a patch that is not JSON
cut              end every stream in the middle of an event
empty            send a put without any flag; recover ends it
html | nohtml    answer everything with 200 and a page | no more
delete FLAG      remove a flag until FILE changes
beat SECONDS     change the heartbeat flag so often; 0: no more
recover          end every fault
quit"""


@click.command("serve", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8030, show_default=True, help="0: any free port.")
@click.option("--beat", type=click.FloatRange(min=0), default=0.5, show_default=True, metavar="SECONDS",
              help="Change the heartbeat flag so often, for clients with a lease; 0: never.")  # fmt: skip
def serve(file: Path, port: int, beat: float) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.lease import LEASE_SECONDS, Lease
    from flags.relay import beat as start_beating
    from flags.relay import serve_file

    lease = Lease(LEASE_SECONDS)
    # Versions from the clock: clients that outlive one relay must see those of the next one rise.
    with serve_file(
        file, lambda news: _tell(file, news), port=port, first_version=int(time.time()), lease=lease
    ) as relay:
        start_beating(relay, beat or None, lease)
        click.echo(f"serving {file} on {relay.uri}")
        obey(relay, sys.stdin, lease)
    return ExitCode.HELD


def obey(relay: Relay, lines: Iterable[str], lease: Lease | None = None) -> None:
    """Do what each line says, until `quit`; serve on, until interrupted, where the lines end without it."""
    for line in lines:
        words = line.split()
        if words == ["quit"]:
            return
        try:
            told = _do(relay, words, lease)
        except UserError as mistake:
            told = f"{mistake}; type help"
        if told:
            click.echo(told)
    Event().wait()


def _do(relay: Relay, words: list[str], lease: Lease | None) -> str:
    from flags.catalog import did_you_mean
    from flags.relay import beat

    plain: dict[str, Callable[[], None]] = {
        "drop": relay.drop,
        "freeze": relay.freeze,
        "thaw": relay.thaw,
        "down": relay.down,
        "up": relay.up,
        "malformed": relay.malformed,
        "cut": relay.cut,
        "empty": relay.empty,
        "html": relay.html,
        "nohtml": lambda: relay.html(False),
        "recover": relay.recover,
    }
    with_one: dict[str, Callable[[str], None]] = {
        "flap": lambda word: relay.flap(_seconds(word) or None),
        "status": lambda word: relay.refuse(_status(word)),
        "slow": lambda word: relay.slow(_seconds(word)),
        "delete": relay.delete,
        "beat": lambda word: beat(relay, _seconds(word) or None, lease),
    }
    if words in ([], ["help"]):
        return HELP if words else ""
    name, *rest = words
    if name not in plain and name not in with_one:
        raise UserError(f'unknown command "{name}"; {did_you_mean(name, [*plain, *with_one, "help", "quit"])}')
    if len(rest) != (name in with_one):
        raise UserError(f"{name} takes {'one word' if name in with_one else 'nothing'} after it")
    if name in plain:
        plain[name]()
    else:
        with_one[name](rest[0])
    return "ok"


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86_400:
        raise UserError(f'"{word}" is not a number of seconds below a day')
    return seconds


def _status(word: str) -> int | None:
    if word == "0":
        return None
    if not word.isdigit() or not 400 <= int(word) <= 599:
        raise UserError(f'"{word}" is not an HTTP status from 400 to 599')
    return int(word)


def _tell(file: Path, news: str | None) -> None:
    click.echo(news or f"{file}: read, and served as it is", err=True)
