"""Print the formats that snapdrill reads and writes, as JSON.

WHAT is `events` (JSON Schema of one line of a ledger, for `snapdrill check --trace`), `scenario` (JSON Schema of a
scenario file, for editors), or `trace-names` (what the original's telemetry is called in a ledger).
"""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("what", type=click.Choice(["events", "scenario", "trace-names"]))
def command(what: str) -> None:
    """Print one of them."""
    from sim import event_schema, scenario

    documents = {
        "events": event_schema.json_schema,
        "scenario": scenario.json_schema,
        "trace-names": event_schema.trace_names,
    }
    click.echo(json.dumps(documents[what](), indent=2))
