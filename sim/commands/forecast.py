"""Forecast the flag's effect on a fleet too large for one machine: memory, losses, and what cannot be undone.

PLAN_OR_FLEET is a fleet file, or a rollout plan with its stages and its fleet. Sandboxes are simulated event by event,
exposed by LaunchDarkly's rollout rules; the costs of a pause come from --calibration (written by `snapdrill bench
--calibrate`). With --against-real N it also pauses N real sandboxes and compares them with their forecast: exit code 1
if they differ by more than the stated error.

Example: snapdrill forecast scenarios/fleets/example.yaml --sandboxes 9999
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands import Seconds
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.rollout.agreement import Agreement
    from sim.rollout.costs import Costs


_MOST = 10_000_000


def _whole(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """`1_000_000` and `1000000`."""
    if text is None:
        return None
    if not text.isascii() or not text.replace("_", "").isdecimal() or int(text) < 1:
        raise click.BadParameter(f'expected a number such as 1_000_000, got "{text}"')
    return int(text)


def _weights(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(float(each.strip().removesuffix("%")) for each in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= each <= 100 for each in found):
        raise click.BadParameter(f'expected percents such as 0,1,10,50,100, got "{text}"')
    return found


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    from sim.files.units import parse_size

    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("forecast")
@click.argument("path", metavar="PLAN_OR_FLEET", type=click.Path(path_type=Path))
@click.option(
    "--sandboxes", callback=_whole, metavar="N", help="How many sandboxes; by default as many as the file says."
)
@click.option(
    "--weights",
    callback=_weights,
    metavar="LIST",
    help="Weights in percent, such as 0,1,10,50,100; by default the plan's.",
)
@click.option(
    "--hours",
    metavar="H",
    type=click.FloatRange(min=0.02, max=720),
    default=24.0,
    show_default=True,
    help="Virtual time to simulate.",
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=1, show_default=True, help="Seed for drawing the fleet."
)
@click.option("--by", metavar="KIND", type=click.Choice(["sandbox", "team", "template", "cluster"]),
              help="Unit of the rollout: sandbox, team, template or cluster.")  # fmt: skip
@click.option(
    "--failure-rate",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of pauses whose copy fails, such as 1e-5.",
)
@click.option(
    "--background-copy", "background", is_flag=True, help="Copy in the background, after the pause has answered."
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Costs from `bench --calibrate`; assumed ones without it.",
)
@click.option(
    "--node-memory", callback=_bytes, metavar="SIZE", help="A node's memory, for a plan over a table of sandboxes."
)
@click.option("--paused-for", type=Seconds(), help="How long a pause lasts, for a plan over a table.  [default: 10m]")
@click.option(
    "--against-real", type=click.IntRange(1, 1000), metavar="N", help="Also pause N real sandboxes and compare."
)
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where run folders of --against-real go.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    path: Path,
    sandboxes: int | None,
    weights: tuple[float, ...] | None,
    hours: float,
    seed: int,
    by: str | None,
    failure_rate: float | None,
    background: bool,
    calibration: Path | None,
    node_memory: int | None,
    paused_for: float | None,
    against_real: int | None,
    runs_dir: Path,
    as_json: bool,
) -> ExitCode:
    """Replaced by the module's docstring."""
    from sim.report.table import text
    from sim.rollout.forecast import ForecastQuestion, forecast
    from sim.rollout.forecast_source import ForecastSource, source
    from sim.rollout.row_fleet import row_source
    from sim.run.batch import rewrite

    found_there, costs = source(path), _costs(calibration)
    if isinstance(found_there, ForecastSource):
        start = found_there
        _refuse("a plan over a table of sandboxes", path, ("--node-memory", node_memory), ("--paused-for", paused_for))
    else:
        _refuse("a fleet that is drawn", path, ("--sandboxes", sandboxes), ("--by", by))

        def asked_of(share: float) -> None:
            rewrite(f"exposure of every row, {share:.0%}")

        start = row_source(found_there, weights, node_memory=node_memory or 0, paused_for=paused_for, progress=asked_of)
    asked = ForecastQuestion(
        sandboxes=sandboxes or start.fleet.count,
        weights=start.weights if weights is None else tuple(sorted({0.0, *weights})),
        seed=seed,
        hours=hours,
        failure_rate=failure_rate,
        by=by or start.by,
        background=background,
    )
    _require_room(asked.sandboxes)
    found = forecast(start, costs, asked, datetime.now(UTC), lambda done: rewrite(f"{done:.0%} of the time"))
    rewrite("")
    agreed = _against_real(against_real, costs, seed, runs_dir) if against_real else None
    if as_json:
        document = found.document() | ({"agreement": agreed.document()} if agreed else {})
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(text([*found.sections(), *([agreed.section()] if agreed else [])]))
    return ExitCode.VIOLATED if agreed and not agreed.holds else ExitCode.HELD


def _refuse(for_what: str, path: Path, *options: tuple[str, object]) -> None:
    for name, given in options:
        if given is not None:
            raise click.UsageError(f"{name} is for {for_what}, and {path} is none")


def _require_room(sandboxes: int) -> None:
    from engine.errors import UserError

    if sandboxes > _MOST:
        raise UserError(f"{sandboxes:,} sandboxes are more than {_MOST:,}; give a smaller number to --sandboxes")


def _costs(path: Path | None) -> Costs:
    from sim.rollout import bench_report
    from sim.rollout.costs import Costs

    return Costs(bench_report.read(path) if path else None)


def _against_real(count: int, costs: Costs, seed: int, runs_dir: Path) -> Agreement:
    import asyncio

    from sim.rollout.agreement import compare_with_real

    return asyncio.run(compare_with_real(count, costs, seed, runs_dir))
