"""The two runs behind a twin: the same fleet and seed, with the punch flag off and on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import UserError
from flags.catalog import PUNCH
from flags.inline import as_written
from sim.files.scenario import Scenario, load_text
from sim.files.yaml import parse, scenario_text
from sim.node.memory import PUNCHED_PEAK
from sim.record.view import View
from sim.run.needs import free_memory, missing, needed_memory
from sim.run.runner import RunOptions, run_scenario
from sim.tui.requests import MOST_AT_ONCE
from sim.tui.twin import RunArm

MIB = 1 << 20


def runs_of(scenario: Scenario, runs_dir: Path, seed: int | None) -> RunArm:
    """Arms of this scenario, on its own seed or on this."""

    async def run(view: View, progress: Callable[[str], None], *, punch: bool) -> View:
        made = arm(scenario, view.flags, punch=punch)
        if reason := refusal(made, view):
            raise UserError(reason)
        return (await run_scenario(made, RunOptions(runs_dir, seed), progress)).view

    return run


def refusal(made: Scenario, view: View) -> str | None:
    """Why there is no room for it beside the fleet on screen, which may need as much; None if there is room."""
    if reason := missing(made):
        return reason
    need, free = needed_memory(made), free_memory()
    growth = max(0, need - view.memory.now)
    if need + growth <= free:
        return None
    return (
        f"it needs {need // MIB} MiB, the fleet on screen may still take {growth // MIB} MiB, and {free // MIB} MiB"
        " are available"
    )


OWN = frozenset({"inline", "relay"})
"""Sources whose values the scenario itself gives."""


LONGEST = 48
"""Characters of a scenario's name that its arms' keep: a name has 60 at most."""


def on_relay(scenario: Scenario, lease: str | None) -> Scenario:
    """The same, its values served over a stream; with a `lease` such as `2s`. UserError where they are not its own."""
    if scenario.flag_source not in OWN:
        raise UserError(
            f"{scenario.path}: its flags come from {scenario.flag_source}; --relay serves values that a scenario gives"
        )
    served = {"source": "relay"} | ({"lease": lease} if lease is not None else {})
    flags = served | {key: as_written(value) for key, value in scenario.flag_values.items()}
    return _made(scenario, {"flags": flags}, "with its flags served by a relay.")


def arm(scenario: Scenario, flags: Mapping[str, Any], *, punch: bool) -> Scenario:
    """One arm: the same fleet and node, `flags` as they are on screen, punching on or off for all; a tick, one pause.

    UserError if LaunchDarkly serves the flags: they cannot be set from here.
    """
    if scenario.flag_source == "launchdarkly":
        raise UserError("LaunchDarkly serves the flags of this scenario: a twin cannot turn them")
    name = f"{scenario.name[:LONGEST].strip('-.')}-twin-{'on' if punch else 'off'}"
    at_a_time = _at_once(scenario)
    steps: list[dict[str, Any]] = [
        {"flag": {**flags, PUNCH: punch}},
        {"tick": 1},
        {"pause": {"concurrency": at_a_time, "wave": True}},
    ]
    changed: dict[str, Any] = {"name": name, "steps": steps, "expect": []}
    changed |= {"flags": {}} if scenario.flag_file is None else {}
    return _made(scenario, changed, "as a twin: its fleet is paused once, and nothing is broken.")


def _at_once(scenario: Scenario) -> int:
    """The whole fleet in one wave, as far as the budget has room for its copies: its peak is what is asked."""
    sizes = [each.memory for each in scenario.sandboxes()]
    room = (scenario.node.memory - sum(sizes)) // (max(sizes) + PUNCHED_PEAK)
    return max(1, min(len(sizes), room, MOST_AT_ONCE))


def _made(scenario: Scenario, changed: Mapping[str, Any], how: str) -> Scenario:
    """What a swarm may draw is left out."""
    data = {key: value for key, value in parse(scenario.source_text).data.items() if key != "swarm"}
    text = scenario_text({**data, **changed}, f"{scenario.title}, {how}")
    return load_text(text, scenario.path)
