"""Drive a live fleet on screen: pause, resume, flip the flag, break a copy, and watch memory.

SCENARIO gives the fleet and its flags; you take the steps yourself. Without SCENARIO it is the demo. Leaving (q) judges
every invariant, tears everything down and exits with the verdict. Without a terminal the scenario is run instead.

`--relay` serves the scenario's flags over a stream, as LaunchDarkly does: keys on the flags screen (2) drop it, freeze
it, take it down and restore it. With `--lease 2s` nothing punches once the last heartbeat is two seconds old.

`--attach RUN` watches a run of another process, from its folder: you cannot change it, and nothing is judged before it
has ended.

`--web` serves the screen to a browser on this machine, by a link that opens once; nothing but the clock can be asked
there unless you add `--web-control`. Needs the extra `web`.

`--stage` is a demonstration of 90 seconds on twelve rows, for a talk: the arrow keys go from beat to beat;
`--autopilot` needs no keys and exits with 0 if each beat ended as it should. `--record` keeps the screen for `asciinema
play`.

Example: snapdrill tui scenarios/demo.yaml --seed 7
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from engine.errors import UserError
from sim.commands import guest_option
from sim.record.verdict import ExitCode, Verdict
from sim.record.view import View

if TYPE_CHECKING:
    from sim.files.fleet import GuestKind
    from sim.files.scenario import Scenario
    from sim.run.drill import Drill
    from sim.tui.app import ShowApp
    from sim.tui.fleet_app import FleetApp
    from sim.tui.stage_beats import Beat
    from sim.tui.terminal import Cast, DrawnOn
from sim.tui.available import is_served, is_terminal, is_unicode


@click.command("tui")
@click.argument("scenario", required=False, type=click.Path(path_type=pathlib.Path))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the scenario's.")
@guest_option
@click.option("--runs-dir", default="runs", type=click.Path(path_type=pathlib.Path, file_okay=False), show_default=True)
@click.option("--stage", is_flag=True, help="Play the demonstration for a talk, on twelve rows.")
@click.option("--autopilot", is_flag=True, help="Play the demonstration without keys.")
@click.option(
    "--record",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="Write an asciinema recording of the screen.",
)
@click.option("--relay", is_flag=True, help="Serve the flags over a stream; keys break it.")
@click.option(
    "--lease",
    metavar="TIME",
    help="With --relay: nothing punches once the last heartbeat is older than this, such as 2s.",
)
@click.option("--obey-unsafe", is_flag=True,
              help="Obey flags with a mistake that punches more than was written, as production would.")  # fmt: skip
@click.option(
    "--attach", metavar="RUN", type=click.Path(path_type=pathlib.Path), help="Watch a run of another process."
)
@click.option("--web", is_flag=True, help="Serve the screen to a browser on this machine, read-only.")
@click.option("--web-control", is_flag=True, help="With --web: let the browser change the fleet.")
@click.option("--web-port", type=click.IntRange(0, 65535), default=0, help="With --web: 0 takes a free one.")
@click.option("--read-only", is_flag=True, help="Let only the clock tick; refuse every other request to the fleet.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII only; the default without UTF-8.")
@click.option("--theme", metavar="NAME", help="A textual theme, or high-contrast; ctrl+p changes it.")
@click.pass_context
def command(
    context: click.Context,
    scenario: pathlib.Path | None,
    seed: int | None,
    guest: GuestKind | None,
    runs_dir: pathlib.Path,
    stage: bool,
    autopilot: bool,
    record: pathlib.Path | None,
    relay: bool,
    lease: str | None,
    obey_unsafe: bool,
    attach: pathlib.Path | None,
    web: bool,
    web_control: bool,
    web_port: int,
    read_only: bool,
    ascii_only: bool,
    theme: str | None,
) -> int:
    """Run the screen; the exit code is the verdict's, or 128 + the signal's number."""
    stage = stage or autopilot
    _check_together(attach, scenario, seed, stage=stage, relay=relay, lease=lease, obey_unsafe=obey_unsafe, guest=guest)
    if web or web_control or web_port:
        return _served(context, web_port, web=web, stage=stage, record=record)
    if not is_terminal():
        options = {"seed": seed, "guest": guest, "runs_dir": runs_dir, "obey_unsafe": obey_unsafe}
        return _without_screen(context, scenario, options, stage=stage, relay=relay, attach=attach)

    from sim.run.needs import missing

    cast = _cast(record)
    drawn_on = _driver(ascii_only=ascii_only, cast=cast)
    runs: list[Drill] = []
    try:
        if attach is not None:
            return _attached(attach, drawn_on, theme)
        if stage:
            return _on_stage(runs, runs_dir, drawn_on, guest or "auto", autopilot=autopilot)
        loaded = _loaded(scenario, guest, relay=relay, lease=lease, obey_unsafe=obey_unsafe)
        if lacks := missing(loaded):
            click.echo(f"snapdrill: {loaded.path} cannot be run here: {lacks}", err=True)
            return ExitCode.UNSUPPORTED
        app = _fleet_app(runs, loaded, runs_dir, seed, drawn_on)
        _set(app, theme, read_only=read_only)
        began = app.theme
        _drive(app, runs)
        _keep(app.theme, began)
        code = _print_verdict(app.last, runs[-1].run_dir if runs else None)
        return 128 + app.signal if app.signal is not None else code
    finally:
        if cast is not None:
            cast.close()


def _driver(*, ascii_only: bool, cast: Cast | None) -> DrawnOn:
    """What the screen is drawn on; what is printed goes past a browser, which takes standard output."""
    from sim.tui.terminal import Browser, terminal

    if not is_served():
        return terminal(ascii_only=ascii_only or not is_unicode(), cast=cast)
    sys.stdout = sys.stderr
    return Browser


def _served(context: click.Context, port: int, *, web: bool, stage: bool, record: pathlib.Path | None) -> int:
    """Serve what these options show until a signal comes: 128 + its number."""
    if not web:
        raise UserError("--web-control and --web-port are for --web; add it")
    if stage or record is not None:
        raise UserError("--web shows a fleet or a run; remove --stage, --autopilot and --record")
    try:
        from sim.tui.web import listen, serve
    except ModuleNotFoundError:
        raise UserError("--web needs textual-serve: pip install 'snapdrill[web]'") from None
    try:
        listener = listen(port)
    except OSError as error:
        raise UserError(f"--web-port {port}: {error.strerror}; take another, or 0 for a free one") from error

    def say(link: str) -> None:
        click.echo(f"snapdrill: open this in a browser on this machine; it opens once, ctrl+c ends it:\n{link}")

    return 128 + asyncio.run(serve(_arguments(context), listener, say))


OF_THE_SERVER = frozenset({"web", "web_control", "web_port", "read_only"})


def _arguments(context: click.Context) -> list[str]:
    """What was asked for, for a process of its own, read-only unless the browser may change the fleet."""
    is_watched = context.params["read_only"] or not context.params["web_control"]
    asked = ["tui", *(["--read-only"] if is_watched else [])]
    of_argument = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if not given or param.name in OF_THE_SERVER:
            continue
        if isinstance(param, click.Option):
            asked += [param.opts[0]] if value is True else [param.opts[0], str(value)]
        else:
            of_argument = ["--", str(value)]
    return [*asked, *of_argument]


def _check_together(
    attach: pathlib.Path | None,
    scenario: pathlib.Path | None,
    seed: int | None,
    *,
    stage: bool,
    relay: bool,
    lease: str | None,
    obey_unsafe: bool,
    guest: GuestKind | None,
) -> None:
    """UserError for options that contradict each other."""
    if attach is not None and (stage or scenario is not None or seed is not None or relay):
        raise UserError("--attach watches an existing run; remove SCENARIO, --seed, --stage and --relay")
    if stage and (scenario is not None or seed is not None or relay):
        raise UserError("--stage has its own fleets and seed; remove SCENARIO, --seed and --relay, or remove --stage")
    if obey_unsafe and (stage or attach is not None):
        raise UserError("--obey-unsafe is for a scenario that is run; remove it, or remove --stage and --attach")
    if guest is not None and attach is not None:
        raise UserError("--guest is for a fleet that is started; remove it, or remove --attach")
    if lease is not None:
        _check_lease(lease, relay=relay)


def _attached(run: pathlib.Path, drawn_on: DrawnOn, theme: str | None) -> int:
    """0 when the screen is left: nothing is judged here."""
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
    options: Mapping[str, Any],
    *,
    stage: bool,
    relay: bool,
    attach: pathlib.Path | None,
) -> int:
    """What `snapdrill run` does with these options; UserError where only the screen can do it."""
    from sim.commands.run import command as run

    if attach is not None:
        raise UserError(f"--attach needs a terminal; without one use: snapdrill replay {attach}")
    if relay:
        raise UserError("--relay needs a terminal for its keys; without one use: snapdrill run scenarios/outages/")
    if stage:
        raise UserError("--stage needs a terminal; without one use: snapdrill run scenarios/demo.yaml")
    path = _path(scenario)
    click.echo(f"snapdrill: no terminal, so no screen; this runs instead: snapdrill run {path}", err=True)
    code: int = context.invoke(run, paths=(path,), **options)
    return code


def _path(scenario: pathlib.Path | None) -> pathlib.Path:
    from sim.files.shipped import scenario_path

    return scenario or scenario_path("demo.yaml")


def _loaded(
    scenario: pathlib.Path | None, guest: GuestKind | None, *, relay: bool, lease: str | None, obey_unsafe: bool
) -> Scenario:
    from sim.files.guests import with_guests
    from sim.files.scenario import load
    from sim.tui.twin_runs import on_relay

    loaded = load(_path(scenario), obey_unsafe=obey_unsafe)
    return with_guests(on_relay(loaded, lease) if relay else loaded, guest)


def _check_lease(lease: str, *, relay: bool) -> None:
    from sim.files.units import parse_duration

    if not relay:
        raise UserError("--lease needs a flag service whose heartbeat it watches; add --relay")
    try:
        parse_duration(lease)
    except ValueError as error:
        raise UserError(f"--lease: {error}") from error


def _cast(path: pathlib.Path | None) -> Cast | None:
    from sim.tui.terminal import Cast

    return None if path is None else Cast(path, os.get_terminal_size(0), "snapdrill")


def _fleet_app(
    runs: list[Drill], scenario: Scenario, runs_dir: pathlib.Path, seed: int | None, drawn_on: DrawnOn
) -> FleetApp:
    from sim.run.drill import Drill
    from sim.tui.fleet_app import FleetApp
    from sim.tui.twin import Twin
    from sim.tui.twin_runs import runs_of

    driven = scenario.model_copy(
        update={"expect": []}
    )  # these judge the scenario's steps, which are not played; invariants are still judged

    def start() -> Drill:
        runs.append(Drill(driven, runs_dir=runs_dir, seed=seed, long=True))
        return runs[-1]

    return FleetApp(start, drawn_on, Twin(runs_of(scenario, runs_dir, seed)))


def _set(app: FleetApp, theme: str | None, *, read_only: bool) -> None:
    _set_theme(app, theme)
    app.live.refusing = "read-only: you can watch the fleet, not change it" if read_only else None


def _keep(theme: str, began: str) -> None:
    """Keep a theme that was chosen on screen."""
    from sim.tui.settings import keep_theme

    if theme != began:
        keep_theme(theme)


def _set_theme(app: ShowApp, theme: str | None) -> None:
    if theme is not None and theme not in app.available_themes:
        raise UserError(f"no theme is called {theme}; there are: {', '.join(sorted(app.available_themes))}")
    from sim.tui.settings import kept_keys, kept_theme

    kept = kept_theme()
    app.use_keys(kept_keys())
    app.theme = theme or (kept if kept in app.available_themes else None) or app.theme


def _on_stage(
    runs: list[Drill], runs_dir: pathlib.Path, drawn_on: DrawnOn, guest: GuestKind, *, autopilot: bool
) -> int:
    """The exit code of the talk: 0 if each beat that was played ended as it should."""
    from sim.files.scenario import load_text
    from sim.run.drill import Drill
    from sim.run.host import host
    from sim.run.needs import missing
    from sim.tui.stage_app import StageApp, fleet, shrunk, summary
    from sim.tui.stage_beats import BEATS, beats

    here = host()
    available: int = here["memory_available"]
    size = fleet(available)
    played = beats(machines=here["kvm"] and guest != "process")
    first = load_text(played[0].scenario(*size, guest), pathlib.Path("stage.yaml"))
    if guest == "vm" and (lacks := missing(first, runs_dir)):
        click.echo(f"snapdrill: --stage --guest vm cannot be run here: {lacks}", err=True)
        return ExitCode.UNSUPPORTED

    def play(beat: Beat) -> Drill:
        scenario = load_text(beat.scenario(*size, guest), pathlib.Path(f"stage-{beat.name}.yaml"))
        runs.append(Drill(scenario, runs_dir=runs_dir))
        return runs[-1]

    app = StageApp(play, autopilot=autopilot, said=shrunk(size, available), terminal=drawn_on, beats=played)
    _drive(app, runs)
    if app.signal is not None:
        return 128 + app.signal
    lines, verdict = summary(app.verdicts, whole=autopilot, cut_short=app.cut_short, beats=played)
    why = "--guest process" if here["kvm"] else "no virtual machine can run here: see snapdrill doctor"
    left_out = [f"{'LEFT OUT':<12} {beat.name}, {why}" for beat in BEATS if beat not in played]
    click.echo("\n".join([*lines, *left_out]))
    return verdict.exit_code


def _drive(app: FleetApp, runs: list[Drill]) -> None:
    """Run it to its end. After a failure, print how to see what happened until then."""
    from sim.tui.fleet_app import drive

    try:
        asyncio.run(drive(app))
    finally:
        if runs and (app.failure is not None or app.return_code):
            click.echo(f"snapdrill: to see what happened: snapdrill replay {runs[-1].run_dir} --tui", err=True)
    if app.return_code:
        raise click.exceptions.Exit(ExitCode.INTERNAL)


def _print_verdict(last: View | None, run_dir: pathlib.Path | None = None) -> int:
    """Print the verdict, each judgement that did not hold, the run folder and what to do next; the exit code."""
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
