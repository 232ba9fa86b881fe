"""Print the formats that snapdrill reads and writes, as JSON.

WHAT is `events` (JSON Schema of one line of a ledger, for `snapdrill check --trace`), `scenario`, `plan` or `fleet`
(JSON Schema of such a file, for editors), or `trace-names` (what the original's telemetry is called in a ledger).

Example: snapdrill schema scenario > scenario.schema.json
"""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("what", type=click.Choice(["events", "scenario", "trace-names", "plan", "fleet"]))
def command(what: str) -> None:
    """Print one of them."""
    from sim import event_schema, scenario
    from sim.rehearsal import plan_schema

    documents = {
        "events": event_schema.json_schema,
        "scenario": scenario.json_schema,
        "trace-names": event_schema.trace_names,
        "plan": plan_schema.plan_schema,
        "fleet": plan_schema.fleet_schema,
    }
    click.echo(json.dumps(documents[what](), indent=2))
