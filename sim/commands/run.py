"""Run scenarios on real memory and judge them.

PATHS are scenario files, or folders whose *.yaml files are scenarios. Each scenario gets a run folder with its ledger,
report.json, junit.xml and report.html; in a step of GitHub Actions it also annotates the scenario files and adds to
the step's summary. Exit codes: 0 held, 1 violated, 2 invalid file (nothing was started), 3 inconclusive, 4 this host
cannot run it, 5 nothing selected, 130 interrupted.

Example: snapdrill run scenarios/demo.yaml --seed 7
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands import Seconds, guest_option, junit_options

if TYPE_CHECKING:
    from sim.files.fleet import GuestKind
    from sim.report.junit import Family

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("run")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seed", metavar="N", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the file's.")
@click.option("--seeds", metavar="SEEDS", help="Run each of these seeds and judge them together: 1-200, or 5,9,20-30.")
@click.option(
    "--jobs", metavar="N", type=click.IntRange(min=1), help="With --seeds: runs at a time.  [default: one per CPU]"
)
@click.option("--cluster", metavar="ADDRESS",
              help="With --seeds: run on this Dask cluster; `local` starts one in this process.")  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="SANDBOX", help="Run only this sandbox, or this case of a matrix; may be repeated."
)
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="A value for a variable that a scenario declares under vars; may be repeated.")  # fmt: skip
@guest_option
@click.option("--obey-unsafe", is_flag=True,
              help="Obey flags with a mistake that punches more than was written, as production would.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="Put caches into this folder, on disk or tmpfs, instead of the scenario's choice.",
)
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where run folders go: DIR/NAME/TIME-SEED/.")  # fmt: skip
@click.option(
    "--keep",
    type=click.Choice(["never", "failed", "always"]),
    default="never",
    show_default=True,
    help="Which runs keep their caches (guest memory).",
)
@click.option("--time-limit", metavar="SECONDS", type=Seconds(), default=120.0,
              show_default=True, help="Time limit of a scenario, in seconds.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would run and what it needs; start nothing.")
@click.option("--strict", is_flag=True, help="Exit with 4 if a scenario was skipped.")
@click.option("--fail-fast/--keep-going", default=False,
              help="Stop after the first scenario that did not hold, or run all (default).")  # fmt: skip
@click.option("--html", "plot", is_flag=True, help="Draw memory over time in report.html: 5 MB a run, extra `report`.")
@click.option("--prometheus", type=_FILE, metavar="FILE", help="Write metrics of all runs as a Prometheus text file.")
@junit_options
@click.option(
    "--events", type=_FILE, metavar="FILE", help="Stream the ledger as JSON lines while running; - is standard output."
)
def command(
    paths: tuple[Path, ...],
    seed: int | None,
    seeds: str | None,
    jobs: int | None,
    cluster: str | None,
    only: tuple[str, ...],
    variables: tuple[str, ...],
    guest: GuestKind | None,
    obey_unsafe: bool,
    as_json: bool,
    cache_dir: Path | None,
    runs_dir: Path,
    keep: str,
    time_limit: float,
    dry_run: bool,
    strict: bool,
    fail_fast: bool,
    plot: bool,
    prometheus: Path | None,
    junit: Path | None,
    junit_family: Family,
    events: Path | None,
) -> int:
    """Replaced by the module's docstring."""
    from sim.record.ledger import STDOUT, open_sink
    from sim.report.document import run_document
    from sim.report.junit import JunitFile
    from sim.report.outlet import lose_events
    from sim.run.batch import NEVER, NOT_HELD, Batch, nothing_in
    from sim.run.one_by_one import OneByOne, Outputs
    from sim.run.runner import RunOptions

    options = RunOptions(runs_dir=runs_dir, seed=seed, cache_dir=cache_dir, only=only, keep=keep, time_limit=time_limit)
    chosen = OneByOne.load(paths, options, variables, guest=guest, obey_unsafe=obey_unsafe)
    one_run = {"--seed": seed, "--only": chosen.options.only, "--html": plot, "--prometheus": prometheus}
    _check_together(seeds, one_run | {"--events": events}, jobs, cluster, as_json=as_json)
    if not chosen.scenarios:
        click.echo(nothing_in(paths), err=True)
    if dry_run:
        click.echo(json.dumps(chosen.plan_document(), indent=2) if as_json else chosen.plan())
        return chosen.dry_run_code()
    results = JunitFile.of(junit, junit_family)
    chosen.outputs = Outputs(plot=plot, metrics=prometheus, junit=results)
    stops_at = NOT_HELD if fail_fast else NEVER
    batch = Batch(quiet=as_json, on_stderr=events == STDOUT, strict=strict, stops_at=stops_at, junit=results)
    if seeds is not None:
        from sim.run.seeds import SeedOptions, run_scenarios

        code, document = run_scenarios(chosen.scenarios, SeedOptions.of(seeds, options, jobs), batch, cluster)
    else:
        with open_sink(events) as sink:
            if sink is not None:
                chosen.options = replace(chosen.options, events=sink, events_lost=partial(lose_events, events))
            code = chosen.run(batch)
        document = run_document(chosen.documents, code) | batch.left_out()
    if as_json:
        click.echo(json.dumps(document, indent=2))
    return code


def _check_together(
    seeds: str | None, one_run: Mapping[str, Any], jobs: int | None, cluster: str | None, *, as_json: bool
) -> None:
    """Options for a single run do not go with --seeds, and those for many only with it."""
    from sim.record.ledger import STDOUT
    from sim.run.addresses import is_elsewhere

    if as_json and one_run["--events"] == STDOUT:
        raise click.UsageError("--json and --events - both write to standard output; use --events FILE")
    if seeds is None:
        if cluster is not None or jobs is not None:
            option = "--jobs" if cluster is None else "--cluster"
            raise click.UsageError(f"{option} goes with --seeds; remove it, or add --seeds")
        return
    if is_elsewhere(cluster) and jobs is not None:
        raise click.UsageError("--jobs is for this machine; give it to the workers of the cluster instead")
    if given := [name for name, value in one_run.items() if value not in {None, (), False}]:
        raise click.UsageError(f"{given[0]} does not go with --seeds; remove one of them")
