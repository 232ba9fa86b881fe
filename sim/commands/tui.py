"""Drive a live fleet on screen: pause, resume, flip the flag, break a copy, and watch memory.

SCENARIO gives fleet and flags, its steps are left to you; without one it is the demo. Leaving (q) judges every
invariant, tears everything down and ends with the verdict. Where there is no terminal the scenario is run instead.

`--relay` serves the scenario's flags over a stream, as LaunchDarkly does: on the flags screen (2) keys drop it, freeze
it, take it down and restore it. With `--lease 2s` no fresh heartbeat for two seconds means no punching.

`--attach RUN` watches a run that another process drives, from its folder: nothing can be asked of it, and nothing is
judged before it has ended.

`--stage` is a talk of 90 seconds on twelve rows: the arrow keys go from beat to beat, `--autopilot` needs no keys and
ends with 0 where each beat came to what it should. `--record` keeps what was drawn for `asciinema play`.

Example: snapdrill tui scenarios/demo.yaml --seed 7
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import shlex
from typing import TYPE_CHECKING

import click

from engine.errors import UserError
from sim.record.verdict import ExitCode, Verdict
from sim.record.view import View

if TYPE_CHECKING:
    from sim.files.scenario import Scenario
    from sim.run.drill import Drill
    from sim.tui.app import FleetApp, ShowApp
    from sim.tui.stage_beats import Beat
    from sim.tui.terminal import Cast, MortalTerminal
from sim.tui.available import is_terminal, is_unicode


@click.command("tui")
@click.argument("scenario", required=False, type=click.Path(path_type=pathlib.Path))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Instead of the scenario's own.")
@click.option("--runs-dir", default="runs", type=click.Path(path_type=pathlib.Path, file_okay=False), show_default=True)
@click.option("--stage", is_flag=True, help="The talk, on twelve rows.")
@click.option("--autopilot", is_flag=True, help="The talk plays by itself.")
@click.option("--record", type=click.Path(path_type=pathlib.Path, dir_okay=False), help="Keep an asciinema recording.")
@click.option("--relay", is_flag=True, help="Serve the flags over a stream that keys can break: outages.")
@click.option("--lease", metavar="TIME", help="With --relay: no fresh heartbeat for so long, such as 2s, no punching.")
@click.option(
    "--attach", metavar="RUN", type=click.Path(path_type=pathlib.Path), help="Watch a run of another process."
)
@click.option("--read-only", is_flag=True, help="The clock may tick; whatever else is asked of the fleet is refused.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone; so it is where there is no UTF-8.")
@click.option("--theme", metavar="NAME", help="A theme of textual's, or high-contrast; ctrl+p changes it.")
@click.pass_context
def command(
    context: click.Context,
    scenario: pathlib.Path | None,
    seed: int | None,
    runs_dir: pathlib.Path,
    stage: bool,
    autopilot: bool,
    record: pathlib.Path | None,
    relay: bool,
    lease: str | None,
    attach: pathlib.Path | None,
    read_only: bool,
    ascii_only: bool,
    theme: str | None,
) -> int:
    """Run the screen; the exit code is the verdict's, or 128 + the signal's number."""
    stage = stage or autopilot
    _check_together(attach, scenario, seed, stage=stage, relay=relay, lease=lease)
    if not is_terminal():
        return _without_screen(context, scenario, seed, runs_dir, stage=stage, relay=relay, attach=attach)

    from sim.run.needs import missing
    from sim.tui.terminal import terminal

    cast = _cast(record)
    drawn_on = terminal(ascii_only=ascii_only or not is_unicode(), cast=cast)
    runs: list[Drill] = []
    try:
        if attach is not None:
            return _attached(attach, drawn_on, theme)
        if stage:
            return _on_stage(runs, runs_dir, drawn_on, autopilot=autopilot)
        loaded = _loaded(scenario, relay=relay, lease=lease)
        if lacks := missing(loaded):
            click.echo(f"snapdrill: {loaded.path} cannot be run here: {lacks}", err=True)
            return ExitCode.UNSUPPORTED
        app = _fleet_app(runs, loaded, runs_dir, seed, drawn_on)
        _set(app, theme, read_only=read_only)
        began = app.theme
        _drive(app, runs)
        _keep(app.theme, began)
        code = _told(app.last, runs[-1].run_dir if runs else None)
        return 128 + app.signal if app.signal is not None else code
    finally:
        if cast is not None:
            cast.close()


def _check_together(
    attach: pathlib.Path | None,
    scenario: pathlib.Path | None,
    seed: int | None,
    *,
    stage: bool,
    relay: bool,
    lease: str | None,
) -> None:
    """UserError for options that contradict each other."""
    if attach is not None and (stage or scenario is not None or seed is not None or relay):
        raise UserError("--attach watches a run that is there; leave SCENARIO, --seed, --stage and --relay away")
    if stage and (scenario is not None or seed is not None or relay):
        raise UserError("the stage brings its own fleets and seed; leave SCENARIO, --seed and --relay away, or --stage")
    if lease is not None:
        _check_lease(lease, relay=relay)


def _attached(run: pathlib.Path, drawn_on: type[MortalTerminal], theme: str | None) -> int:
    """0 once somebody leaves: nothing was judged here."""
    from sim.record.folder import open_run
    from sim.tui.attached import AttachedApp

    app = AttachedApp(open_run(run), drawn_on)
    _set_theme(app, theme)
    app.run()
    if app.failure is not None:
        raise app.failure
    return ExitCode.INTERNAL if app.return_code else ExitCode.HELD


def _without_screen(
    context: click.Context,
    scenario: pathlib.Path | None,
    seed: int | None,
    runs_dir: pathlib.Path,
    *,
    stage: bool,
    relay: bool,
    attach: pathlib.Path | None,
) -> int:
    from sim.commands.run import command as run

    if attach is not None:
        raise UserError(f"no terminal for the screen; without one: snapdrill replay {attach}")
    if relay:
        raise UserError("no terminal for the keys that break a relay; without one: snapdrill run scenarios/outages/")
    if stage:
        raise UserError("no terminal for the stage; without one there is: snapdrill run scenarios/demo.yaml")
    path = _path(scenario)
    click.echo(f"snapdrill: no terminal for the screen; this is: snapdrill run {path}", err=True)
    code: int = context.invoke(run, paths=(path,), seed=seed, runs_dir=runs_dir)
    return code


def _path(scenario: pathlib.Path | None) -> pathlib.Path:
    from sim.files.shipped import scenario_path

    return scenario or scenario_path("demo.yaml")


def _loaded(scenario: pathlib.Path | None, *, relay: bool, lease: str | None) -> Scenario:
    from sim.files.scenario import load
    from sim.tui.twin_runs import on_relay

    loaded = load(_path(scenario))
    return on_relay(loaded, lease) if relay else loaded


def _check_lease(lease: str, *, relay: bool) -> None:
    from sim.files.units import parse_duration

    if not relay:
        raise UserError("a lease needs a flag service whose heartbeat it watches; add --relay")
    try:
        parse_duration(lease)
    except ValueError as error:
        raise UserError(f"--lease: {error}") from error


def _cast(path: pathlib.Path | None) -> Cast | None:
    from sim.tui.terminal import Cast

    return None if path is None else Cast(path, os.get_terminal_size(0), "snapdrill")


def _fleet_app(
    runs: list[Drill], scenario: Scenario, runs_dir: pathlib.Path, seed: int | None, drawn_on: type[MortalTerminal]
) -> FleetApp:
    from sim.run.drill import Drill
    from sim.tui.app import FleetApp
    from sim.tui.twin import Twin
    from sim.tui.twin_runs import runs_of

    driven = scenario.model_copy(
        update={"expect": []}
    )  # of steps that nobody plays: the invariants are judged all the same

    def start() -> Drill:
        runs.append(Drill(driven, runs_dir=runs_dir, seed=seed))
        return runs[-1]

    return FleetApp(start, drawn_on, Twin(runs_of(scenario, runs_dir, seed)))


def _set(app: FleetApp, theme: str | None, *, read_only: bool) -> None:
    _set_theme(app, theme)
    app.live.refusing = "read-only: the fleet can be watched, not asked" if read_only else None


def _keep(theme: str, began: str) -> None:
    """A theme that somebody chose meanwhile."""
    from sim.tui.settings import keep_theme

    if theme != began:
        keep_theme(theme)


def _set_theme(app: ShowApp, theme: str | None) -> None:
    if theme is not None and theme not in app.available_themes:
        raise UserError(f"no theme is called {theme}; there are: {', '.join(sorted(app.available_themes))}")
    from sim.tui.settings import kept_theme

    kept = kept_theme()
    app.theme = theme or (kept if kept in app.available_themes else None) or app.theme


def _on_stage(runs: list[Drill], runs_dir: pathlib.Path, drawn_on: type[MortalTerminal], *, autopilot: bool) -> int:
    """The verdict of the talk: 0 where each beat that was played came to what it should."""
    from sim.files.scenario import load_text
    from sim.run.drill import Drill
    from sim.run.host import host
    from sim.tui.stage_app import StageApp, fleet, shrunk, summary

    available: int = host()["memory_available"]
    size = fleet(available)

    def play(beat: Beat) -> Drill:
        scenario = load_text(beat.scenario(*size), pathlib.Path(f"stage-{beat.name}.yaml"))
        runs.append(Drill(scenario, runs_dir=runs_dir))
        return runs[-1]

    app = StageApp(play, autopilot=autopilot, said=shrunk(size, available), terminal=drawn_on)
    _drive(app, runs)
    if app.signal is not None:
        return 128 + app.signal
    lines, verdict = summary(app.verdicts, whole=autopilot, cut_short=app.cut_short)
    click.echo("\n".join(lines))
    return verdict.exit_code


def _drive(app: FleetApp, runs: list[Drill]) -> None:
    """To its end. Where it ended by a failure, say how to see what happened up to then."""
    from sim.tui.app import drive

    try:
        asyncio.run(drive(app))
    finally:
        if runs and (app.failure is not None or app.return_code):
            click.echo(f"snapdrill: to see what happened: snapdrill replay {runs[-1].run_dir} --tui", err=True)
    if app.return_code:
        raise click.exceptions.Exit(ExitCode.INTERNAL)


def _told(last: View | None, run_dir: pathlib.Path | None = None) -> int:
    """The verdict on one line, what did not hold on one each, where the run is and what to do next; the exit code."""
    from sim.report.words import judgement

    if last is None:
        click.echo("snapdrill: left before the run had started: nothing was judged", err=True)
        return ExitCode.INCONCLUSIVE
    if last.run is None or last.ended is None:
        click.echo("snapdrill: the run was cut off before it was judged", err=True)
        return ExitCode.INCONCLUSIVE
    click.echo(f"{last.ended.verdict.upper()}  {last.run.name}  seed {last.run.seed}  run {last.run.run}")
    for judged in last.judged:
        if judged.verdict != Verdict.HELD:
            click.echo(f"  {judgement(judged)}")
    if run_dir is not None:
        click.echo(f"run folder: {run_dir}")
        click.echo(f"  see it again:  snapdrill replay {shlex.quote(str(run_dir))} --tui")
        click.echo(f"  judge it again: snapdrill check {shlex.quote(str(run_dir))}")
    return last.ended.exit_code
