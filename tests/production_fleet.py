"""A fleet of 40,000 sandboxes and a flag with its own salt, target, rules, segment and prerequisite.

The figures that tests hold against it were found by LaunchDarkly's client over every row, one flag file a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "memfd-punch-on-snapshot"
TEMPLATES = ("python", "node", "jupyter", "build", "browser")
_SHARES = (0.45, 0.25, 0.15, 0.10, 0.05)
_MIB = {"python": 512, "node": 512, "jupyter": 2048, "build": 4096, "browser": 1024}
_SPREAD = {"python": 0.5, "node": 0.5, "jupyter": 0.7, "build": 0.4, "browser": 0.3}
_DIRTY = {"python": 0.25, "node": 0.3, "jupyter": 0.6, "build": 0.8, "browser": 0.4}
_PAUSES = {"python": 0.3, "node": 0.3, "jupyter": 1.0, "build": 2.0, "browser": 0.5}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One row, as a table has it."""

    sandbox: str
    region: str
    cluster: str
    node: str
    team: str
    template: str
    memory_mib: int
    dirty: float
    pauses_per_hour: float


def production_fleet(count: int = 40_000, seed: int = 11) -> list[Sandbox]:
    """The same for the same seed: a team of 30 %, big guests that are dirtier, 84 nodes in each of 12 clusters."""
    draw = np.random.default_rng(seed)
    templates = draw.choice(TEMPLATES, count, p=_SHARES).tolist()
    regions = draw.choice(["us-east-1", "eu-west-1", "ap-south-1"], count, p=[0.6, 0.3, 0.1]).tolist()
    clusters = [f"{region}-c{draw.integers(1, 5)}" for region in regions]
    popular = 1 / np.arange(1, 601) ** 0.9
    giant = draw.random(count) < 0.3
    others = draw.choice(600, count, p=popular / popular.sum())
    usual, spread, dirty, rate = (np.array([of[each] for each in templates]) for of in (_MIB, _SPREAD, _DIRTY, _PAUSES))
    sizes = _sizes(usual, np.exp(draw.normal(0, spread)))
    shares = np.clip(dirty + 0.15 * np.log(sizes / usual) + draw.normal(0, 0.12, count), 0.01, 1)
    pauses = rate * np.exp(draw.normal(0, 0.4, count))
    return [
        Sandbox(
            sandbox=f"sbx-{number:05d}",
            region=regions[number],
            cluster=clusters[number],
            node=f"{clusters[number]}-n{draw.integers(0, 84):03d}",
            team="megacorp" if giant[number] else f"team-{others[number]:03d}",
            template=templates[number],
            memory_mib=int(sizes[number]),
            dirty=float(f"{shares[number]:.3f}"),
            pauses_per_hour=float(f"{pauses[number]:.3f}"),
        )
        for number in range(count)
    ]


def _sizes(usual: NDArray[np.int64], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(128, np.round(usual * factor / 64) * 64)


def as_csv(fleet: list[Sandbox]) -> str:
    """The table as a file."""
    rows = (
        f"{each.sandbox},{each.region},{each.cluster},{each.node},{each.team},{each.template},{each.memory_mib}MiB,"
        f"{each.dirty:.3f},{each.pauses_per_hour:.3f}"
        for each in fleet
    )
    return "\n".join(["sandbox,region,cluster,node,team,template,memory,dirty,pauses_per_hour", *rows]) + "\n"


def flags(*, safe_first: bool = False) -> dict[str, Any]:
    """Flags and segments as an SDK is served them: punching is listed first, unless `safe_first`."""
    entries = [{"variation": 0, "weight": 5000}, {"variation": 1, "weight": 95_000}]
    browsers = [{"variation": 0, "weight": 25_000}, {"variation": 1, "weight": 75_000}]
    regulated = {"attribute": "", "op": "segmentMatch", "values": ["regulated-teams"], "contextKind": "user"}
    of_browsers = {"attribute": "key", "op": "in", "values": ["browser"], "contextKind": "template"}
    order = -1 if safe_first else 1
    punch = {
        "key": KEY,
        "variations": [True, False],
        "on": True,
        "salt": "9f3c2b7e5d4a4e0f8a1b2c3d4e5f6a7b",
        "version": 37,
        "targets": [],
        "contextTargets": [{"contextKind": "sandbox", "variation": 1, "values": ["sbx-00017"]}],
        "rules": [
            {"id": "8a52a8b4-0001", "variation": 1, "clauses": [{**regulated, "negate": False}]},
            {
                "id": "8a52a8b4-0002",
                "rollout": {"contextKind": "sandbox", "variations": browsers[::order]},
                "clauses": [{**of_browsers, "negate": False}],
            },
        ],
        "fallthrough": {"rollout": {"contextKind": "sandbox", "variations": entries[::order]}},
        "offVariation": 1,
        "prerequisites": [{"key": "punch-allowed", "variation": 0}],
    }
    allowed = {"key": "punch-allowed", "variations": [True, False], "on": True, "salt": "aa11", "offVariation": 1}
    teams = {"contextKind": "team", "values": ["team-003", "team-010"]}
    banks = {"attribute": "name", "op": "contains", "values": ["bank"], "contextKind": "team", "negate": False}
    return {
        "flags": {KEY: punch, "punch-allowed": {**allowed, "fallthrough": {"variation": 0}}},
        "segments": {
            "regulated-teams": {
                "key": "regulated-teams",
                "salt": "5eg5alt",
                "includedContexts": [teams],
                "rules": [{"id": "r1", "clauses": [banks]}],
            }
        },
    }
