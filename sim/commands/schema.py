"""Print the formats that snapdrill reads and writes, as JSON.

WHAT is `events` (JSON Schema of one line of a ledger, for `snapdrill check --trace`), `scenario`, `plan` or `fleet`
(JSON Schema of such a file, for editors), or `trace-names` (where a ledger has the original's telemetry).

Example: snapdrill schema scenario > scenario.schema.json
"""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("what", type=click.Choice(["events", "scenario", "trace-names", "plan", "fleet"]))
def command(what: str) -> None:
    """Print one of the formats."""
    from sim.files import schemas
    from sim.record import schema

    documents = {
        "events": schema.json_schema,
        "scenario": schemas.json_schema,
        "trace-names": schema.trace_names,
        "plan": schemas.plan_schema,
        "fleet": schemas.fleet_schema,
    }
    click.echo(json.dumps(documents[what](), indent=2))
