"""Our own account of a node's peak and the memory cgroup's agree, on tmpfs and on disk."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from sim.files.scenario import load_text
from sim.run.needs import missing
from sim.run.runner import RunOptions, run_scenario

SCENARIO = """
name: account
node: {memory: 2GiB, cache: CACHE}
fleet:
  - {name: web, count: 4, memory: 128MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-background-copy: false}         # else the guests, whose own memory is in the base, are dead at the peak
steps:
  - tick: 1
  - pause: {concurrency: 4}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "taken_back"), [("tmpfs", 0.0), ("disk", 0.05)])
def test_the_cgroup_s_peak_agrees_within_five_percent(cache: str, taken_back: float, tmp_path: pathlib.Path) -> None:
    """Of a cache on disk the kernel may take back what is written, and does where a host reclaims ahead of need."""
    scenario = load_text(SCENARIO.lstrip().replace("CACHE", cache), pathlib.Path("account.yaml"))
    if reason := missing(scenario):
        pytest.skip(reason)
    ended = asyncio.run(run_scenario(scenario, RunOptions(runs_dir=tmp_path))).view.ended
    assert ended is not None
    assert ended.verdict == "held"
    if ended.cgroup_peak is None or ended.cgroup_base is None:
        pytest.skip("this host lets no memory cgroup be made: run as root, or in a delegated cgroup")
    theirs = ended.cgroup_peak - ended.cgroup_base
    assert 0.95 - taken_back <= theirs / ended.peak_with_page_cache <= 1.05
