"""Rehearse a rollout plan stage by stage, to a go or no-go.

PLAN is a file of `kind: plan`. The plan runs twice on real memory with the same seed: as it is written, and with the
flag off throughout, and each stage is compared with the same stage with the flag off. In virtual time (default) hours
become rounds of pauses, and both take them in turns; in real time one comes after the other. Exit codes: 0 go,
1 no-go, 2 invalid plan (nothing was started), 3 inconclusive, 4 this host cannot run it, 130 interrupted.

Example: snapdrill rehearse scenarios/rollouts/punch.yaml --dry-run
"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("rehearse")
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the plan's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=900.0,
    show_default=True,
    help="Seconds that each of the two runs may take.",
)
@click.option(
    "--source",
    type=click.Choice(["launchdarkly"]),
    help="Follow the real flag as its operator turns it, "
    "read-only, in real time; the SDK key is in LAUNCHDARKLY_SDK_KEY.",
)
@click.option("--lease", metavar="TIME", help="This lease instead of the plan's: none, or a duration such as 1s.")
@click.option("--mend", multiple=True, metavar="WEAKNESS", help="Of a plan with a wrong engine; may be repeated.")
@click.option("--matrix", is_flag=True, help="Run each step under each fault of a set instead; a table.")
@click.option("--jobs", type=click.IntRange(min=1), help="With --matrix: runs at a time.  [default: one a CPU]")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="With --matrix: on the Dask cluster there, or on one of this process: local.",
)
@click.option("--html", "plot", is_flag=True, help="Draw memory and propagation in rehearsal.html (5 MB).")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the evidence, and for a go the LaunchDarkly patches of each stage, into a new folder.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the page that decides there, in Markdown that fits a chat message.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what the plan comes to and what is wrong with it; start nothing. Ends with 3 where no go is possible.",
)
def command(
    path: Path,
    seed: int | None,
    as_json: bool,
    runs_dir: Path,
    time_limit: float,
    source: str | None,
    lease: str | None,
    mend: tuple[str, ...],
    export: Path | None,
    matrix: bool,
    jobs: int | None,
    cluster: str | None,
    plot: bool,
    summary: Path | None,
    dry_run: bool,
) -> int:
    """Replaced by the module's docstring."""
    from sim.files.plan import changed, load_plan
    from sim.rollout.session import Session
    from sim.run.dask import is_elsewhere
    from sim.run.runner import RunOptions

    plan = changed(load_plan(path), lease=lease, mend=mend, source=source)
    options = RunOptions(runs_dir=runs_dir, seed=seed, time_limit=time_limit)
    session = Session(plan, options, quiet=as_json, export=export, plot=plot, summary=summary)
    if dry_run:
        return session.outline()
    if matrix:
        if is_elsewhere(cluster) and jobs is not None:
            raise click.UsageError("--jobs is of this machine; the workers of a cluster say their own")
        return session.run_matrix(jobs, cluster=cluster)
    if jobs is not None or cluster is not None:
        raise click.UsageError(f"{'--jobs' if cluster is None else '--cluster'} goes with --matrix")
    code = session.run()
    if as_json and session.rehearsal is not None:
        click.echo(json.dumps(session.document(), indent=2))
    return code
