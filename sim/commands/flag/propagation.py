"""Measure how long the kill switch takes, from OFF at its source to the first decision that obeys it.

By file, by stream, and half-open (the connection stays and nothing comes) with and without a lease, each as a
distribution; with the real SDK, over loopback: to a stream comes the way to LaunchDarkly. Half-open without a lease
the SDK notices after 300 s, which is not waited for.

Example: snapdrill flags propagation --rounds 5
"""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.propagation import Way
    from sim.report.judgements import Distribution

MOST_DEAF_ROUNDS = 2
"""Each round of half-open without a lease takes the whole time that is waited."""


@click.command("propagation", help=inspect.cleandoc(__doc__))
@click.option("--rounds", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N",
              help="How often, each way.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(min=0.1), default=0.5, show_default=True, metavar="SECONDS",
              help="The heartbeat comes three times in it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with every round's seconds.")
def propagation(rounds: int, lease: float, as_json: bool) -> ExitCode:
    """Replaced by the module's docstring."""
    times = measured(rounds, lease)
    if as_json:
        click.echo(json.dumps({"version": 1, "lease": lease, "ways": as_document(times)}, indent=2))
    else:
        click.echo(report(times, lease))
    return ExitCode.HELD


def measured(rounds: int, lease: float) -> dict[Way, list[float | None]]:
    """Seconds of each round, by way; None where OFF was not obeyed while it was waited for."""
    from flags.propagation import kill_switch_times
    from flags.sdk_logs import silence_sdk_logs

    silence_sdk_logs()
    ways: tuple[Way, ...] = ("file", "stream", "half-open with lease")
    found = {way: kill_switch_times(way, rounds, give_up=30.0, lease=lease) for way in ways}
    deaf = kill_switch_times("half-open", min(rounds, MOST_DEAF_ROUNDS), give_up=give_up(lease), lease=lease)
    return {**found, "half-open": deaf}


def give_up(lease: float) -> float:
    """Seconds that half-open without a lease is waited for: twice as long as any lease takes to close."""
    return 2 * lease


def report(times: dict[Way, list[float | None]], lease: float) -> str:
    """A table of milliseconds, a line a way."""
    from sim.report.table import Section, Table, text

    title = f"kill switch, from OFF at its source to the first decision that obeys it (measured; lease {lease:g} s)"
    head = ("way", "obeyed", "min", "median", "p95", "max", "note")
    rows = [(way, _obeyed(each), *_figures(each, lease)) for way, each in times.items()]
    return text(Section(title, (Table(head, rows, "<>>>>>~"),)))


def as_document(times: dict[Way, list[float | None]]) -> dict[str, Any]:
    """JSON-ready, in seconds; null for a round that was given up. `n` is how often OFF was obeyed."""
    found = {way: _distribution(each) for way, each in times.items()}
    return {way: {"seconds": times[way], **(asdict(each) if each else {"n": 0})} for way, each in found.items()}


def _distribution(times: list[float | None]) -> Distribution | None:
    from sim.report.judgements import distribution

    return distribution([each for each in times if each is not None])


def _obeyed(times: list[float | None]) -> str:
    return f"{sum(each is not None for each in times)}/{len(times)}"


def _figures(times: list[float | None], lease: float) -> tuple[str, ...]:
    """Milliseconds, and what there is to note."""
    found = _distribution(times)
    if found is None:
        note = f"not while it lasts ({give_up(lease):g} s were waited): the SDK says VALID for 300 s (given)"
        return "-", "-", "-", "-", note
    return (*(f"{seconds * 1e3:.1f} ms" for seconds in (found.min, found.median, found.p95, found.max)), "")
