"""Run scenarios for other machines: join the Dask scheduler at ADDRESS as a worker.

ADDRESS is tls://HOST:PORT, or on this machine's loopback tcp://HOST:PORT. With --scheduler this process is the
scheduler at ADDRESS too. The worker reports what its host offers, as doctor finds it, and only gets runs that fit:
`snapdrill sweep --cluster ADDRESS` and `snapdrill run --seeds SEEDS --cluster ADDRESS` send their runs here. Anyone who
reaches a scheduler runs code on every worker, so anything but the loopback needs TLS: --make-certificates DIR makes
certificates, and each machine gets a copy of DIR. Exits with 0 when the scheduler stops, with 130 or 143 when
interrupted; its unfinished runs are given to other workers.

Example: snapdrill worker tls://10.0.0.7:8786 --tls-dir certs --jobs 4
"""

from __future__ import annotations

from pathlib import Path

import click

from sim.record.verdict import ExitCode


@click.command("worker")
@click.argument("address", required=False)
@click.option("--make-certificates", "certificates", type=click.Path(path_type=Path), metavar="DIR",
              help="Make a new folder with the certificates of a cluster, and end.")  # fmt: skip
@click.option("--tls-dir", envvar="SNAPDRILL_TLS_DIR", type=click.Path(path_type=Path), metavar="DIR",
              help="The folder with the certificates.  [default: SNAPDRILL_TLS_DIR]")  # fmt: skip
@click.option("--scheduler", is_flag=True, help="Also run the scheduler at ADDRESS.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Runs at a time.  [default: one per CPU]")
@click.option("--memory", metavar="SIZE", help="Memory for all runs at a time.  [default: 3/4 of the available memory]")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Folder for the runs while they run; none is kept there.")  # fmt: skip
def command(
    address: str | None,
    certificates: Path | None,
    tls_dir: Path | None,
    scheduler: bool,
    jobs: int | None,
    memory: str | None,
    runs_dir: Path,
) -> ExitCode:
    """Replaced by the module's docstring."""
    import asyncio

    from sim.run.certificates import given, make

    if certificates is not None:
        make(certificates)
        click.echo(f"{certificates}: made; copy it to each machine of the cluster, and keep key.pem secret")
        return ExitCode.HELD
    if address is None:
        raise click.UsageError("Missing argument 'ADDRESS'.")
    from sim.files.units import parse_size
    from sim.run.dask_worker import load_distributed, serve
    from sim.run.needs import free_memory
    from sim.run.pool import default_jobs

    try:
        size = free_memory() * 3 // 4 if memory is None else parse_size(memory)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--memory") from error
    load_distributed()
    known = given(tls_dir)
    work = serve(
        address, runs_dir, jobs or default_jobs(), size, scheduler=scheduler, echo=click.echo, certificates=known
    )
    return asyncio.run(work)
