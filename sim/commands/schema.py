"""Print the formats that snapdrill reads and writes.

WHAT is `events` (JSON Schema of one line of a ledger, for `snapdrill check --trace`), `scenario`, `plan` or `fleet`
(JSON Schema of such a file, for editors), `trace-names` (where a ledger has the original's telemetry), or `reference`
(every key, metric and fault of a scenario, as Markdown).

Example: snapdrill schema scenario > scenario.schema.json
"""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("what", type=click.Choice(["events", "scenario", "trace-names", "plan", "fleet", "reference"]))
def command(what: str) -> None:
    """Print one of the formats."""
    from sim.files import schemas
    from sim.record import schema
    from sim.report.scenario_reference import reference

    if what == "reference":
        return click.echo(reference(), nl=False)
    documents = {
        "events": schema.json_schema,
        "scenario": schemas.json_schema,
        "trace-names": schema.trace_names,
        "plan": schemas.plan_schema,
        "fleet": schemas.fleet_schema,
    }
    return click.echo(json.dumps(documents[what](), indent=2))
