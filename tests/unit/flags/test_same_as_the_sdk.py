"""Random flags: decide, explain and cohort serve what the SDK serves of the flag rewritten for Go, and Node's serves.

The rewrite here is a second one, of plain data, that knows only which kinds a context has. One seed; FLAG_SEED=N draws
others. Facts of the SDKs: docs/flags.md.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ldclient import Context
from ldclient.impl.evaluator import Evaluator as SdkEvaluator
from ldclient.impl.events.types import EventFactory
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from flags.cohort import Member, cohort
from flags.context import ALL, ORIGINAL, Contexts, SandboxAttributes
from flags.explain import explain
from flags.launchdarkly import Evaluator, InProcessSource

PUNCH = "memfd-punch-on-snapshot"
SEED = int(os.environ.get("FLAG_SEED", "18"))
FLAGS = 60
FLEET = [
    SandboxAttributes(f"web-{n}", f"template-{n % 3}", f"team-{n % 4}", kernel_version=("6.1.158", "5.10.2")[n % 2])
    for n in range(24)
]
KINDS = ["sandbox", "team", "orchestrator", "host", None]
Sections = tuple[dict[str, Any], dict[str, Any]]


def drawn_rollout(draw: random.Random, variations: int) -> dict[str, Any]:
    cuts = sorted(draw.choice([0, 1, 30_000, 50_000, 100_000]) for _ in range(variations - 1))
    weights = [high - low for low, high in zip([0, *cuts], [*cuts, 100_000], strict=True)]
    if draw.random() < 0.1:
        weights[-1] = 0
    entries = [{"variation": each, "weight": weight} for each, weight in enumerate(weights)]
    draw.shuffle(entries)
    rollout: dict[str, Any] = {"variations": entries}
    if (kind := draw.choice(KINDS)) is not None:
        rollout["contextKind"] = kind
    if draw.random() < 0.3:
        rollout["bucketBy"] = draw.choice(["key", "template-id", "zone", "kernel-version"])
    if draw.random() < 0.2:
        rollout |= {"seed": draw.randrange(99)} | ({"kind": "experiment"} if draw.random() < 0.5 else {})
    return {"rollout": rollout}


def drawn_clause(draw: random.Random) -> dict[str, Any]:
    op, values = draw.choice(
        [
            ("in", ["web-1", "web-2", "team-1"]), ("startsWith", ["web-1"]), ("semVerLessThan", ["6.0.0"]),
            ("matches", ["^web-[0-4]$"]), ("contains", ["1"]), ("segmentMatch", ["canary"]), ("in", [1, True]),
        ]
    )  # fmt: skip
    attribute = "" if op == "segmentMatch" else draw.choice(["key", "kernel-version", "template-id", "kind"])
    clause: dict[str, Any] = {"attribute": attribute, "op": op, "values": values, "negate": draw.random() < 0.3}
    kind = draw.choice(KINDS)
    return clause if kind is None or op == "segmentMatch" else {**clause, "contextKind": kind}


def drawn(draw: random.Random) -> Sections:
    """A flag of the catalogue with a prerequisite and a segment."""

    def served() -> dict[str, Any]:
        return drawn_rollout(draw, 2) if draw.random() < 0.6 else {"variation": draw.randrange(2)}

    def flag(key: str, **more: Any) -> dict[str, Any]:
        rules = [
            {"id": f"r{n}", **served(), "clauses": [drawn_clause(draw) for _ in range(draw.randrange(3))]}
            for n in range(draw.randrange(3))
        ]
        return {
            "key": key, "version": 3, "salt": draw.choice("abc"), "on": draw.random() < 0.9,
            "variations": [False, True], "offVariation": draw.choice([0, 0, 1, None]), "fallthrough": served(),
            "rules": rules, **more,
        }  # fmt: skip

    rules: list[dict[str, Any]] = [{"clauses": [drawn_clause(draw)]} for _ in range(draw.randrange(3))]
    for rule in rules:
        if draw.random() < 0.6:
            rule["weight"] = draw.choice([0, 50_000, 100_000])
        if "weight" in rule and (kind := draw.choice(KINDS)) is not None:
            rule["rolloutContextKind"] = kind
        for clause in rule["clauses"]:
            if clause["op"] == "segmentMatch":
                clause["values"] = ["other"]
    segments = {name: {"key": name, "version": 1, "salt": "s", "rules": rules if name == "canary" else []}
                for name in ("canary", "other")}  # fmt: skip
    asked = [{"key": "gate", "variation": draw.randrange(2)}] if draw.random() < 0.3 else []
    targets = [{"contextKind": "sandbox", "variation": 1, "values": ["web-3"]}] if draw.random() < 0.3 else []
    return {PUNCH: flag(PUNCH, prerequisites=asked, contextTargets=targets), "gate": flag("gate")}, segments


def as_go(value: Any, kinds: set[str]) -> Any:
    """Of any part of a flag or segment: what Go makes of a kind that is not there."""
    if isinstance(value, list):
        parts = [each for each in value if not _is_share_of_nothing(each, kinds)]
        return [as_go(each, kinds) for each in parts]
    if not isinstance(value, dict):
        return value
    rollout = value.get("rollout")
    if rollout and value.get("variation") is None and (rollout.get("contextKind") or "user") not in kinds:
        entries, at = rollout["variations"], 0
        while at < len(entries) - 1 and sum(each["weight"] for each in entries[: at + 1]) <= 0:
            at += 1
        value = {**value, "variation": entries[at]["variation"], "rollout": None}
    return {name: as_go(each, kinds) for name, each in value.items()}


def _is_share_of_nothing(part: Any, kinds: set[str]) -> bool:
    shares = isinstance(part, dict) and "clauses" in part and "weight" in part
    return shares and (part.get("rolloutContextKind") or "user") not in kinds


def sdk_says(sections: Sections, data: Mapping[str, Any]) -> tuple[Any, int | None, str]:
    """Python's evaluator over the rewritten flags, with nothing of ours around it."""
    kinds = set(data) - {"kind"}
    flags = {key: FEATURES.decode(as_go(each, kinds)) for key, each in sections[0].items()}
    segments = {key: SEGMENTS.decode(as_go(each, kinds)) for key, each in sections[1].items()}
    parts = [Context.from_dict({"kind": kind, **data[kind]}) for kind in sorted(kinds)]
    evaluator = SdkEvaluator(flags.get, segments.get, lambda _key: (None, ""))
    context = Context.create_multi(*parts)
    detail: Any = evaluator.evaluate(flags[PUNCH], context, EventFactory(with_reasons=True)).detail
    value = False if detail.variation_index is None else detail.value
    return value, detail.variation_index, detail.reason["kind"]


def cases() -> Iterator[tuple[Sections, Contexts]]:
    draw = random.Random(SEED)
    for _ in range(FLAGS):
        yield drawn(draw), draw.choice([ORIGINAL, ALL])


def test_decide_explain_and_cohort_serve_what_the_sdk_serves() -> None:
    seen = set()
    for number, (sections, contexts) in enumerate(cases()):
        with closing(Evaluator(InProcessSource(*sections), contexts=contexts)) as evaluator:
            expected = []
            for each in FLEET:
                data = contexts.context(each, "pause")
                expected.append(sdk_says(sections, data))
                made = evaluator.decide(each).evaluation(PUNCH)
                where = f"FLAG_SEED={SEED}, flag {number}, {each.sandbox}"
                assert (made.value, made.variation, made.reason.partition(":")[0]) == expected[-1], where
        (told,) = explain(sections, contexts.context(FLEET[number % len(FLEET)], "pause"), [PUNCH])
        assert (told.evaluation.value, told.evaluation.variation) == expected[number % len(FLEET)][:2]
        on = cohort(sections, PUNCH, [Member(each) for each in FLEET], contexts, "pause")
        assert [each.attributes.sandbox for each in on] == [
            each.sandbox for each, (value, _, _) in zip(FLEET, expected, strict=True) if value
        ]
        seen |= {(value, reason) for value, _, reason in expected}
    assert {reason for _, reason in seen} >= {"OFF", "FALLTHROUGH", "RULE_MATCH", "TARGET_MATCH", "PREREQUISITE_FAILED"}
    assert {value for value, _ in seen} == {True, False}


NODE = """
const LaunchDarkly = require("@launchdarkly/node-server-sdk");
const {integrations} = LaunchDarkly;
const cases = JSON.parse(require("fs").readFileSync(0));
(async () => {
  const found = [];
  for (const {file, contexts} of cases) {
    const options = {sendEvents: false, diagnosticOptOut: true, logger: LaunchDarkly.basicLogger({level: "none"})};
    options.updateProcessor = new integrations.FileDataSourceFactory({paths: [file]}).getFactory();
    const client = LaunchDarkly.init("sdk-test", options);
    await client.waitForInitialization({timeout: 20});
    const row = [];
    for (const each of contexts) row.push((await client.variation("memfd-punch-on-snapshot", each, false)));
    found.push(row);
    client.close();
  }
  console.log(JSON.stringify(found));
  process.exit(0);
})();
"""
NODE_DIFFERS = ("a rollout by a kind that is not there", "a segment's share by a kind that is not there")
"""Known differences of Node's SDK to Go's, which leave a flag out."""


def node_modules() -> Path | None:
    """Where the Node SDK is installed: outside the repository, in NODE_PATH or a folder above."""
    if shutil.which("node") is None:
        return None
    places = [Path(each) for each in os.environ.get("NODE_PATH", "").split(":") if each]
    places += [each / "node_modules" for each in Path(__file__).resolve().parents]
    return next((each for each in places if (each / "@launchdarkly" / "node-server-sdk").is_dir()), None)


def known_difference(sections: Sections, kinds: set[str]) -> bool:
    """One of NODE_DIFFERS: the rewrite for Go is not the flag itself."""
    return any(as_go(items, kinds) != items for items in sections)


@pytest.mark.skipif(node_modules() is None, reason="no @launchdarkly/node-server-sdk in NODE_PATH or a folder above")
def test_the_node_sdk_serves_the_same_except_for_its_known_differences(tmp_path: Path) -> None:
    modules, asked, expected = node_modules(), [], []
    assert modules is not None
    for number, (sections, contexts) in enumerate(cases()):
        made = [contexts.context(each, "pause") for each in FLEET]
        if known_difference(sections, set(made[0]) - {"kind"}):
            continue
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"flags": sections[0], "segments": sections[1]}))
        asked.append({"file": str(file), "contexts": made})
        expected.append([sdk_says(sections, each)[0] for each in made])
    assert asked
    ran = subprocess.run(["node", "-e", NODE], input=json.dumps(asked), capture_output=True, text=True, check=True,
                         cwd=modules.parent, timeout=100)  # fmt: skip
    assert json.loads(ran.stdout) == expected
