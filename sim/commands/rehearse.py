"""Rehearse a rollout plan stage by stage, to a go or no-go.

PLAN is a file of `kind: plan`. The plan runs twice on real memory with the same seed: as it is written, and with the
flag off throughout, and each stage is compared with the same stage with the flag off. In virtual time (default) hours
become rounds of pauses, and the two runs alternate; in real time the second run follows the first. Exit codes: 0 go, 1
no-go, 2 invalid plan (nothing was started), 3 inconclusive, 4 this host cannot run it, 130 interrupted.

Example: snapdrill rehearse scenarios/rollouts/punch.yaml --dry-run
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands import Seconds, guest_option, junit_options

if TYPE_CHECKING:
    from sim.files.fleet import GuestKind
    from sim.report.junit import Family


@click.command("rehearse")
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the plan's.")
@guest_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--time-limit",
    type=Seconds(),
    default=900.0,
    show_default=True,
    help="Time limit of each run, in seconds.",
)
@click.option(
    "--source",
    type=click.Choice(["launchdarkly"]),
    help="Follow the real flag while its operator changes it, "
    "read-only, in real time; the SDK key is in LAUNCHDARKLY_SDK_KEY.",
)
@click.option("--lease", metavar="TIME", help="Use this lease instead of the plan's: none, or a duration such as 1s.")
@click.option(
    "--mend", multiple=True, metavar="WEAKNESS", help="Mend this weakness of the plan's wrong engine; may be repeated."
)
@click.option(
    "--salvage-arm",
    is_flag=True,
    help="Run the plan a third time, with `on_copy_failure: salvage`, and compare losses and memory.",
)
@click.option("--matrix", is_flag=True, help="Instead run each step under each fault of a set, and print a table.")
@click.option("--jobs", type=click.IntRange(min=1), help="With --matrix: runs at a time.  [default: one per CPU]")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="With --matrix: run on this Dask cluster; `local` starts one in this process.",
)
@click.option("--html", "plot", is_flag=True, help="Draw memory and propagation in rehearsal.html (5 MB).")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the evidence, and for a go each stage's LaunchDarkly patches, into a new folder.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the page with the decision to FILE, as Markdown that fits a chat message.",
)
@click.option(
    "--openmetrics",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result to FILE as OpenMetrics.",
)
@click.option(
    "--continue",
    "goes_on",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Go on after an `approve` step; RUN is the folder of the rehearsal that waits, and is not run again.",
)
@junit_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what the plan would do and what is wrong with it; start nothing. Exits with 3 if no go is possible.",
)
def command(
    path: Path,
    seed: int | None,
    guest: GuestKind | None,
    as_json: bool,
    runs_dir: Path,
    time_limit: float,
    source: str | None,
    lease: str | None,
    mend: tuple[str, ...],
    salvage_arm: bool,
    export: Path | None,
    matrix: bool,
    jobs: int | None,
    cluster: str | None,
    plot: bool,
    summary: Path | None,
    junit: Path | None,
    junit_family: Family,
    openmetrics: Path | None,
    goes_on: Path | None,
    dry_run: bool,
) -> int:
    """Replaced by the module's docstring."""
    from sim.files.guests import plan_with_guests
    from sim.files.plan import changed, load_plan
    from sim.report.junit import JunitFile
    from sim.rollout.session import Session
    from sim.run.addresses import is_elsewhere
    from sim.run.runner import RunOptions

    plan = plan_with_guests(changed(load_plan(path), lease=lease, mend=mend, source=source), guest)
    plan = plan.model_copy(update={"salvage_arm": salvage_arm or plan.salvage_arm})
    options = RunOptions(runs_dir=runs_dir, seed=seed, time_limit=time_limit)
    results = None if dry_run else JunitFile.of(junit, junit_family)
    _check_together(goes_on=goes_on is not None, matrix=matrix, dry_run=dry_run, salvage_arm=salvage_arm)
    session = Session(
        plan,
        options,
        quiet=as_json,
        export=export,
        plot=plot,
        summary=summary,
        junit=results,
        goes_on=goes_on,
        openmetrics=openmetrics,
    )
    if dry_run:
        return session.outline()
    if matrix:
        if is_elsewhere(cluster) and jobs is not None:
            raise click.UsageError("--jobs is for this machine; give it to the workers of the cluster instead")
        return session.run_matrix(jobs, cluster=cluster)
    if jobs is not None or cluster is not None:
        raise click.UsageError(f"{'--jobs' if cluster is None else '--cluster'} goes with --matrix")
    code = session.run()
    if as_json and session.rehearsal is not None:
        click.echo(json.dumps(session.document(), indent=2))
    return code


def _check_together(*, goes_on: bool, matrix: bool, dry_run: bool, salvage_arm: bool) -> None:
    if goes_on and (matrix or dry_run):
        raise click.UsageError("--continue goes with neither --matrix nor --dry-run")
    if matrix and salvage_arm:
        raise click.UsageError("--salvage-arm does not go with --matrix, which has no arms; remove one of them")
