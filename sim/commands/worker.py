"""Run scenarios for other machines: join the Dask scheduler at ADDRESS as a worker.

ADDRESS is tcp://HOST:PORT or HOST:PORT. With --scheduler this process is the scheduler at ADDRESS too. The worker
reports what its host offers, as doctor finds it, and only gets runs that fit: `snapdrill sweep --cluster ADDRESS` and
`snapdrill run --seeds SEEDS --cluster ADDRESS` send their runs here. Dask lets anyone who reaches ADDRESS run code on
every worker: use it only in networks that you trust. Exits with 0 when the scheduler stops, with 130 or 143 when
interrupted; its unfinished runs are given to other workers.

Example: snapdrill worker tcp://10.0.0.7:8786 --jobs 4
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.record.verdict import ExitCode


@click.command("worker")
@click.argument("address")
@click.option("--scheduler", is_flag=True, help="Also run the scheduler at ADDRESS.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Runs at a time.  [default: one per CPU]")
@click.option("--memory", metavar="SIZE", help="Memory for all runs at a time.  [default: 3/4 of the available memory]")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Folder for the runs while they run; none is kept there.")  # fmt: skip
def command(address: str, scheduler: bool, jobs: int | None, memory: str | None, runs_dir: Path) -> ExitCode:
    """Replaced by the module's docstring."""
    import asyncio

    from sim.files.units import parse_size
    from sim.run.dask_worker import load_distributed, serve
    from sim.run.needs import free_memory
    from sim.run.pool import default_jobs

    try:
        size = free_memory() * 3 // 4 if memory is None else parse_size(memory)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--memory") from error
    load_distributed()
    return asyncio.run(serve(address, runs_dir, jobs or default_jobs(), size, scheduler=scheduler, echo=click.echo))
