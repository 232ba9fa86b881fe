"""Show where a flag file differs from what LaunchDarkly serves now; reads only, and sends nothing.

Compares the flags of the pause path, those they ask for and their segments, in all that changes an evaluation. The
SDK key of the environment is taken from LAUNCHDARKLY_SDK_KEY. Ends with 0 where there is no difference, 1 where there
is one, 2 where LaunchDarkly cannot be asked.

Example: snapdrill flags diff flags.json --live
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import UserError
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.drift import Drift, Sections


@click.command("diff", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Compare with LaunchDarkly: the only thing to compare with so far.")
@click.option("--uri", metavar="URI", help="Another service that speaks its protocol, such as snapdrill flags serve.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the flags.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def diff(file: Path, live: bool, uri: str | None, timeout: float, as_json: bool) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.drift import drift
    from flags.file import read_as_served

    if not live:
        raise click.UsageError("say what to compare with: --live")
    here = read_as_served(file)
    found = drift(here, live_sections(uri, timeout))
    if as_json:
        rows = [{name: getattr(each, name) for name in each.__slots__} for each in found]
        click.echo(json.dumps({"version": 1, "file": str(file), "differences": rows}, indent=2))
    else:
        click.echo("\n".join([*map(words, found), f"{file}: {_count(len(found))}"]))
    return ExitCode.VIOLATED if found else ExitCode.HELD


def live_sections(uri: str | None, timeout: float) -> Sections:
    """What LaunchDarkly serves; UserError where it cannot be asked within `timeout` seconds."""
    from flags.sdk_logs import silence_sdk_logs
    from flags.streaming import LaunchDarklyFlags

    silence_sdk_logs()
    client = LaunchDarklyFlags(stream_uri=uri)
    try:
        if not client.wait_ready(timeout):
            error = client.status().error
            raise UserError(f"LaunchDarkly sent no flags in {timeout:g} s{f': {error}' if error else ''}; try again")
        return client.sections()
    finally:
        client.close()


def words(each: Drift) -> str:
    """`flag memfd-punch-on-snapshot: on: true here, false live`."""
    what = f"{each.section.removesuffix('s')} {each.key}"
    if not each.part:
        return f"{what}: only {'live' if each.here is None else 'here'}"
    return f"{what}: {each.part}: {_value(each.here)} here, {_value(each.live)} live"


def _value(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)


def _count(number: int) -> str:
    return {0: "no difference", 1: "1 difference"}.get(number, f"{number} differences")
