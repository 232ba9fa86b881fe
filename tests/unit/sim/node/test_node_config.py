"""What a node process is told: read back as it was written, with or without a crash behind it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from flags.context import SandboxAttributes
from sim.node.config import Ended, Known, NodeConfig, OpenPause, SandboxConfig

MIB = 1 << 20
WEB = SandboxConfig("web-0", 8 * MIB, 4096, 2 * MIB, "python", "acme", "eu", 0.4, "runs")
FRESH = NodeConfig(
    run="ab12",
    run_dir="runs/demo/x",
    builds="runs/demo/x/cache",
    socket_dir="sockets",
    seed=(1 << 63) - 1,
    began=123.456,
    budget=64 * MIB,
    grace=30.0,
    cgroup=None,
    mutant=None,
    sandboxes=[WEB, dataclasses.replace(WEB, name="web-1")],
    inline_flags={"memfd-punch-on-snapshot": {"on": True, "variations": [False, True]}},
    flag_file=None,
)
CUT_OFF = OpenPause("web-0.p1", "memfd", True, "as it is legal", "legal", 4096, None)
AFTER_A_CRASH = dataclasses.replace(
    FRESH,
    tick=7,
    mutant="scan-rearms",
    cgroup="cgroup/snapdrill-ab12",
    inline_flags=None,
    flag_file="flags.json",
    known={
        "web-0": Known("pausing", "", None, 1, 1, CUT_OFF),
        "web-1": Known("paused", "done", "web-1.p1", 2, 1, None, "web-1.2", Ended("web-1.p1", "finished", True)),
    },
)


@pytest.mark.parametrize("config", [FRESH, AFTER_A_CRASH], ids=["fresh", "after a crash"])
def test_a_config_is_read_back_as_it_was_written(tmp_path: Path, config: NodeConfig) -> None:
    config.write(tmp_path / "node.json")
    assert NodeConfig.read(tmp_path / "node.json") == config


def test_a_config_of_another_version_is_not_taken_for_ours(tmp_path: Path) -> None:
    FRESH.write(tmp_path / "node.json")
    text = (tmp_path / "node.json").read_text()
    (tmp_path / "node.json").write_text(text.replace('"grace"', '"patience"'))
    with pytest.raises(TypeError, match="patience"):
        NodeConfig.read(tmp_path / "node.json")


def test_a_guest_is_told_its_sandboxs_memory_and_work_and_the_runs_seed() -> None:
    assert FRESH.guest_spec(WEB, "web-0.3") == {
        "run": "ab12",
        "sandbox": "web-0",
        "incarnation": "web-0.3",
        "seed": (1 << 63) - 1,
        "memory": 8 * MIB,
        "page_size": 4096,
        "block_size": 2 * MIB,
        "dirty": 0.4,
        "pattern": "runs",
        "heartbeat": 0.0,
        "threads": 1,
        "guest": "process",
        "program": "beside",
    }


def test_flags_are_evaluated_for_the_sandbox_and_what_it_belongs_to() -> None:
    assert WEB.attributes() == SandboxAttributes(sandbox="web-0", template="python", team="acme", cluster="eu")
