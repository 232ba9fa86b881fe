"""Run units of others: join the Dask scheduler at ADDRESS as a worker.

ADDRESS is tcp://HOST:PORT or HOST:PORT. With --scheduler this process is the scheduler at ADDRESS too. The worker says
what its host has, as doctor finds it, and is given only what fits: `snapdrill sweep --cluster ADDRESS` and `snapdrill
run --seeds SEEDS --cluster ADDRESS` send their runs here. Dask lets whoever reaches ADDRESS run code on every worker:
use it in networks that you trust. Ends with 0 when the scheduler does, with 130 or 143 when it is interrupted; what it
ran then, others are given.

Example: snapdrill worker tcp://10.0.0.7:8786 --jobs 4
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.record.verdict import ExitCode


@click.command("worker")
@click.argument("address")
@click.option("--scheduler", is_flag=True, help="Be the scheduler at ADDRESS too.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Units at a time.  [default: one a CPU]")
@click.option("--memory", metavar="SIZE", help="For all of them.  [default: 3/4 of free]")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where runs are made, and none remains.")  # fmt: skip
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
    return asyncio.run(serve(address, runs_dir, jobs or default_jobs(), size, scheduler=scheduler, told=click.echo))
