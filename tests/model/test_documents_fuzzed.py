"""Whatever a document holds: a verdict or mistakes with their place; no traceback, no control character, no flood.

`make fuzz SECONDS=60` goes on for so long, with other examples each time; make test takes a small fixed share of them.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import cli

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 40
ROOT = pathlib.Path(__file__).parents[2]
MOST_LINES, LONGEST_LINE = 130, 4100
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

SCENARIO = """
version: 1
name: fuzzed
seed: 3
node: {memory: 256MiB, cache: disk}
fleet:
  - {name: web, count: 2, memory: 4MiB, workload: {dirty: 40%, pattern: scattered}}
flags: {memfd-punch-on-snapshot: {rollout: 50%, by: sandbox}}
steps:
  - tick: 1
  - inject: {fault: copy.write, errno: ENOSPC, at: {chunk: 0}, sandboxes: "web-*"}
  - pause: {sandboxes: "web-*", concurrency: 3}
  - expect: {sandboxes: "web-*", state: [discarded, running], counts: {discarded: ">=0"}}
expect:
  - {metric: peak_over, where: {punch: true}, max: 8MiB}
"""
PLAN = """
kind: plan
version: 1
name: fuzzed
flag: memfd-punch-on-snapshot
fleet: [{name: web, count: 2, memory: 4MiB}]
steps: [{setWeight: 5}]
"""
FLAG = {
    "key": "memfd-punch-on-snapshot",
    "version": 1,
    "on": True,
    "salt": "s",
    "variations": [False, True],
    "offVariation": 0,
    "prerequisites": [{"key": "use-memfd", "variation": 1}],
    "targets": [{"values": ["web-0"], "variation": 1}],
    "contextTargets": [{"contextKind": "sandbox", "values": ["web-1"], "variation": 1}],
    "rules": [
        {
            "id": "r",
            "variation": 1,
            "clauses": [{"attribute": "key", "op": "in", "values": ["a"], "contextKind": "team"}],
        }
    ],
    "fallthrough": {
        "rollout": {
            "contextKind": "sandbox",
            "variations": [{"variation": 0, "weight": 50000}, {"variation": 1, "weight": 50000}],
        }
    },
}
FLAGS = {"flags": {FLAG["key"]: FLAG}, "segments": {"s": {"key": "s", "version": 1, "included": ["a"], "rules": []}}}
EXPORT = {
    "items": [
        {
            **FLAG,
            "variations": [{"value": False, "_id": "a"}, {"value": True, "_id": "b"}],
            "environments": {"production": FLAG},
        }
    ]
}
EVENTS = [
    {"t": 0, "event": "ticked", "number": 1},
    {"t": 1, "event": "pause_returned", "sandbox": "web-0", "pause": "web-0.p1", "blocked_ms": 1.0},
]
TABLE = "sandbox,team,template,memory,dirty\nweb-0,acme,base,32MiB,40%\nweb-1,acme,base,1048576,\n"

ODD: list[Any] = [
    None,
    True,
    [],
    {},
    [[]],
    {"a": 1},
    "",
    "x",
    "\n::error::x",
    "\x1b[31m\a",
    "\u202e",
    "\ud800",
    "a" * 70_000,
    "[!",
    "*a" * 500,
    "../..",
    "/dev/zero",
    "\0",
    0,
    -1,
    0.5,
    1e308,
    float("inf"),
    10**20,
    10**400,
    -(10**30),
    "9999999999GiB",
    "100000000h",
    "1e9%",
    "${{ vars.x }}",
    "memfd-punch-on-snapshot",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in items for place in places(each, (*path, key)))]


def mutated(document: Any, draw: random.Random) -> Any:
    """One to three parts replaced, dropped, doubled, or added."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        path = draw.choice(places(document))
        if not path:
            if draw.random() < 0.1:
                return draw.choice(ODD)
            continue
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        act = draw.random()
        if act < 0.6:
            parent[path[-1]] = draw.choice(ODD)
        elif act < 0.75:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw.choice(["x", "\n::warning::y", "kind", "\u202e"])] = parent[path[-1]]
        else:
            parent.extend([parent[path[-1]]] * draw.choice([1, 60]))
    return document


def as_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True).encode()


def broken(content: bytes, draw: random.Random) -> bytes:
    """Bytes of a text cut, swapped or doubled."""
    at, to = sorted((draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)))
    middle = draw.choice(
        [b"", content[at:to] * 3, b"\xff", b"{" * 300, b"1" * 5000, b"\0", b'"', b"\x1b[2J", b"\r\n::error::x"]
    )
    return content[:at] + middle + content[to if draw.random() < 0.3 else at :]


def written(draw: random.Random) -> tuple[str, bytes, list[list[str]]]:
    """A file's name, its content, and the command lines that take such a file."""
    from sim.files.yaml import parse

    form = draw.choice(["scenario", "plan", "flags", "export", "ledger", "table", "rows", "record"])
    if form in {"scenario", "plan"}:
        text = SCENARIO if form == "scenario" else PLAN
        # JSON is YAML too
        content = as_json(mutated(parse(text).data, draw)) if draw.random() < 0.7 else broken(text.encode(), draw)
        return (
            "f.yaml",
            content,
            [["validate"], ["run", "--dry-run"], ["rehearse", "--dry-run"]][: 2 if form == "scenario" else 3],
        )
    if form in {"flags", "export"}:
        content = as_json(mutated(FLAGS if form == "flags" else EXPORT, draw))
        content = broken(content, draw) if draw.random() < 0.2 else content
        return (
            "f.json",
            content,
            [["flags", "lint"], ["flags", "explain", "--sandbox", "web-0"], ["flags", "import", "--env", "production"]],
        )
    if form == "ledger":
        content = b"".join(as_json(mutated(each, draw)) + b"\n" for each in EVENTS)
        return (
            "events.jsonl",
            broken(content, draw) if draw.random() < 0.3 else content,
            [["check", "--trace"], ["replay"], ["report"]],
        )
    if form == "record":
        record = {
            "run": "0123abcd",
            "runner_pid": 1,
            "runner_start_time": 1,
            "node_pid": None,
            "node_start_time": None,
            "zygote_pid": None,
            "zygote_start_time": None,
            "cache_dir": "/x",
            "socket_dir": "/y",
            "cgroup": None,
            "ended": True,
        }
        return "runs/a/1/run.json", as_json(mutated(record, draw)), [["clean", "--dry-run", "--runs-dir"]]
    if form == "rows":
        rows = [
            {"sandbox": "web-0", "team": "a", "template": "b", "memory": "32MiB"},
            {"sandbox": "web-1", "memory": 5},
        ]
        return "f.json", as_json(mutated(rows, draw)), [["fleet", "import"]]
    return "f.csv", broken(TABLE.encode(), draw), [["fleet", "import"], ["flags", "cohort", "--contexts-from"]]


def complaint(code: int, printed: str, *, bounded: bool = True) -> str | None:
    """What is wrong with how a command ended; None where nothing is. Lint names every mistake of a file of flags."""
    lines = printed.splitlines()
    if code == 70 or "Traceback" in printed:
        return f"exit code {code}: {printed[-600:]}"
    if any(line.lstrip().startswith("::") for line in lines):
        return "a line that GitHub takes for a command"
    if found := OBEYED.search(printed):
        return f"{found[0]!r} is printed"
    if bounded and (len(lines) > MOST_LINES or max(map(len, lines), default=0) > LONGEST_LINE):
        return f"{len(lines)} lines, the longest of {max(map(len, lines), default=0)} characters"
    return None


Try = Callable[[int], None]


@pytest.fixture
def try_seed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Try:
    """One document through every command that takes such a one; a failure says the seed."""
    monkeypatch.chdir(tmp_path)

    def tried(seed: int) -> None:
        name, content, commands = written(random.Random(seed))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        for command in commands:
            began = time.process_time()
            try:
                code = cli.main([*command, "runs" if command[0] == "clean" else name])
            except SystemExit as ended:
                code = int(ended.code or 0)
            out, err = capfd.readouterr()
            printed = err if command[:2] == ["flags", "import"] else out + err
            wrong = complaint(code, printed, bounded=command[:2] != ["flags", "lint"])
            assert wrong is None, f"seed {seed}: {' '.join(command)}: {wrong}"
            assert time.process_time() - began < 10, f"seed {seed}: {' '.join(command)} is too slow"

    return tried


@pytest.mark.skipif(bool(SECONDS), reason="make fuzz takes other examples")
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 1 << 32))
def test_no_document_ends_in_a_defect(try_seed: Try, seed: int) -> None:
    try_seed(seed)


@pytest.mark.skipif(not SECONDS, reason="make fuzz SECONDS=60 runs it")
@pytest.mark.timeout(0)
def test_no_document_ends_in_a_defect_for_as_long_as_is_asked(try_seed: Try) -> None:
    first, ends, count = time.time_ns() % (1 << 40), time.monotonic() + SECONDS, 0
    while time.monotonic() < ends:
        try_seed(first + count)
        count += 1
    assert count > 0
