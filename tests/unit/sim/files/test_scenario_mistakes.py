"""Mistakes in a scenario file: all of them at once, each with its place, its path and what to do."""

# ruff: noqa: E501 - the golden lines are as long as what people see
from __future__ import annotations

import pathlib
import textwrap

import pytest

from flags.document import DocumentError
from sim.files.scenario import load_text


def mistakes(text: str) -> list[str]:
    """`line:column: path: message` of each; an empty list for a valid file."""
    try:
        load_text(textwrap.dedent(text), pathlib.Path("s.yaml"))
    except DocumentError as refused:
        return [line.removeprefix("s.yaml:").replace(" error:", "", 1) for line in str(refused).splitlines()]
    return []


MANY = """\
version: 2
name: Many Mistakes
sed: 1
seed: -3
node: {memory: 64, cache: ram}
requires: [hugetbl]
fleet:
  - {name: web, count: 0, memory: 10MB, page_size: 8KiB, worklod: {}}
  - name: api
    memory: 5KiB
    workload: {dirty: 140%, pattern: scatered}
  - {count: true}
flags:
  memfd-punch-on-snapshop: true
  memfd-background-copy: {rollout: 50, by: sandbx}
  memfd-punch-on-snapshot: on
  memfd-punch-on-snapshot: true
steps:
  - tick: 0
  - tik: 3
  - pause
  - pause:
  - pause: {concurency: 3, state: runing, where: {punch: true}, deadline: 60}
  - flag: {memfd-punch-on-snapshot: 1:30, use-memfdd: {rollout: 1%, from: x}}
  - flag: {}
  - inject: {fault: copy.writ, errno: ENOSPCE, at: {chunk: -1}}
  - inject: {fault: punch, at: middle, count: 1.5}
  - crash: {at: {fault: punch, chunks: 1}}
  - crash: {sandboxes: "web-*"}
  - wait: 3
  - expect: {state: [paused, gone], counts: {pausd: ">=1", paused: "=>1"}}
  - expect: {}
  - resume: {kind: resume}
  - tick: 1
    wait: 1s
expect:
  - {invariant: never_resume}
  - {metric: peak_ratio, max: 8MiB, min: .inf}
  - {metric: peak_over, where: {punch: yes, paht: memfd}, max: 1}
  - {metric: copy_ms, min: 3, max: 2}
  - {metric: copy_ms}
  - {verdict: violated}
  - {verdict: held, invariant: no_leaks}
  - {foo: 1}
  - 3
"""
GOLDEN = """\
s.yaml:1:10: error: version: unknown value 2; use one of: 1
s.yaml:2:7: error: name: expected a short name of a-z, 0-9 and "-", got "Many Mistakes"
s.yaml:3:1: error: sed: unknown key; did you mean "seed"?
s.yaml:4:7: error: seed: expected at least 0, got -3
s.yaml:5:16: error: node.memory: expected a size such as 32MiB, got 64
s.yaml:5:27: error: node.cache: unknown value "ram"; use one of: disk, tmpfs
s.yaml:6:12: error: requires[0]: unknown value "hugetbl"; did you mean "hugetlb"?
s.yaml:8:24: error: fleet[0].count: expected at least 1, got 0
s.yaml:8:35: error: fleet[0].memory: expected a size such as 32MiB, got "10MB"
s.yaml:8:52: error: fleet[0].page_size: expected 4KiB or 2MiB, got "8KiB"
s.yaml:8:58: error: fleet[0].worklod: unknown key; did you mean "workload"?
s.yaml:10:13: error: fleet[1].memory: expected a multiple of 4KiB, got 5KiB
s.yaml:11:23: error: fleet[1].workload.dirty: expected a share of at most 100%, got "140%"
s.yaml:11:38: error: fleet[1].workload.pattern: unknown value "scatered"; did you mean "scattered"?
s.yaml:12:5: error: fleet[2].memory: missing; it is required
s.yaml:12:5: error: fleet[2].name: missing; it is required
s.yaml:12:13: error: fleet[2].count: expected a whole number, got true
s.yaml:14:3: error: flags.memfd-punch-on-snapshop: unknown flag; did you mean "memfd-punch-on-snapshot"?
s.yaml:15:36: error: flags.memfd-background-copy.rollout: expected a share such as 40%, got 50
s.yaml:15:44: error: flags.memfd-background-copy.by: unknown value "sandbx"; did you mean "sandbox"?
s.yaml:16:28: error: flags.memfd-punch-on-snapshot: expected true, false or {rollout: 50%, by: sandbox}, got "on"
s.yaml:17:3: error: duplicate key "memfd-punch-on-snapshot"; the first is in line 16
s.yaml:19:11: error: steps[0].tick: expected at least 1, got 0
s.yaml:20:5: error: steps[1]: unknown step "tik"; did you mean "tick"?
s.yaml:21:5: error: steps[2]: a step is one key and its settings, such as `pause: {concurrency: 3}`; found "pause"
s.yaml:22:5: error: steps[3]: pause takes settings; write `pause: {}` for the defaults
s.yaml:23:13: error: steps[4].pause.concurency: unknown key; did you mean "concurrency"?
s.yaml:23:35: error: steps[4].pause.state: unknown value "runing"; did you mean "running"?
s.yaml:23:50: error: steps[4].pause.where.punched: missing; it is required
s.yaml:23:51: error: steps[4].pause.where.punch: unknown key; did you mean "punched"?
s.yaml:23:75: error: steps[4].pause.deadline: expected a duration such as 250ms, 3s or 2m, got 60
s.yaml:24:37: error: steps[5].flag.memfd-punch-on-snapshot: expected true, false or {rollout: 50%, by: sandbox}, got "1:30"
s.yaml:24:43: error: steps[5].flag.use-memfdd: unknown flag; did you mean "use-memfd"?
s.yaml:25:11: error: steps[6].flag: expected at least one entry, got none
s.yaml:26:21: error: steps[7].inject.fault: unknown value "copy.writ"; did you mean "copy.write"?
s.yaml:26:39: error: steps[7].inject.errno: unknown errno; did you mean "ENOSPC"?
s.yaml:26:60: error: steps[7].inject.at.chunk: expected at least 0, got -1
s.yaml:27:32: error: steps[8].inject.at: unknown place "middle"; use {chunk: 3}, first, last, 50% or after_condemn
s.yaml:27:47: error: steps[8].inject.count: expected a whole number, got 1.5
s.yaml:28:32: error: steps[9].crash.at.chunks: unknown key; did you mean "chunk"?
s.yaml:29:12: error: steps[10].crash: a crash without `at` kills the node at once; remove `sandboxes`, or add `at`
s.yaml:30:11: error: steps[11].wait: expected a duration such as 250ms, 3s or 2m, got 3
s.yaml:31:30: error: steps[12].expect.state[1]: unknown value "gone"; use one of: checkpointing, discarded, killed, paused, pausing, resuming, running
s.yaml:31:46: error: steps[12].expect.counts.pausd: unknown value "pausd"; did you mean "paused"?
s.yaml:31:68: error: steps[12].expect.counts.paused: expected a comparison such as ">=1", "3" or "<2", got "=>1"
s.yaml:32:13: error: steps[13].expect: nothing is expected; add state or counts
s.yaml:33:5: error: steps[14]: resume has no setting "kind"; remove it
s.yaml:34:5: error: steps[15]: a step is one key and its settings, such as `pause: {concurrency: 3}`; found tick, wait
s.yaml:37:17: error: expect[0].invariant: unknown value "never_resume"; did you mean "never_resumed"?
s.yaml:38:31: error: expect[1].max: expected a number, got "8MiB"
s.yaml:38:42: error: expect[1].min: expected a finite number, got inf
s.yaml:39:40: error: expect[2].where.punch: expected true or false, got "yes"
s.yaml:39:45: error: expect[2].where.paht: unknown key; did you mean "path"?
s.yaml:40:5: error: expect[3]: min is greater than max, so no value can match; lower min or raise max
s.yaml:41:5: error: expect[4]: a metric without a bound expects nothing; add min or max
s.yaml:42:5: error: expect[5]: a canary names what must be violated; add either invariant or metric
s.yaml:43:15: error: expect[6].verdict: unknown value "held"; use one of: inconclusive, violated
s.yaml:44:5: error: expect[7]: expected one of invariant, metric, state, counts or verdict
s.yaml:45:5: error: expect[8]: expected a mapping, got 3
"""


def test_every_mistake_of_a_file_is_told_at_once_with_its_place() -> None:
    with pytest.raises(DocumentError) as refused:
        load_text(MANY, pathlib.Path("s.yaml"))
    assert "".join(f"{each}\n" for each in refused.value.mistakes) == GOLDEN


def test_fifty_mistakes_are_printed_and_the_others_counted() -> None:
    with pytest.raises(DocumentError) as refused:
        load_text(MANY, pathlib.Path("s.yaml"))
    lines = GOLDEN.splitlines()
    assert str(refused.value).splitlines() == [*lines[:50], f"and {len(lines) - 50} more"]


FLEET = """
name: s
fleet:
  - {name: web, count: 3, memory: 32MiB}
"""


def test_a_glob_that_can_match_nothing_is_a_mistake_wherever_it_stands() -> None:
    more = """\
    steps:
      - pause: {sandboxes: "wbe-*"}
      - resume: {sandboxes: web-7}
      - inject: {fault: punch, sandboxes: database}
    expect:
      - {metric: copy_ms, where: {sandboxes: "web-[3-9]"}, max: 3}
    """
    assert mistakes(FLEET + textwrap.dedent(more)) == [
        '6:24: steps[0].pause.sandboxes: no sandbox matches "wbe-*"; did you mean "web-*"?',
        '7:25: steps[1].resume.sandboxes: no sandbox matches "web-7"; did you mean "web-2"?',
        '8:39: steps[2].inject.sandboxes: no sandbox matches "database"; use one of: web-*',
        '10:42: expect[0].where.sandboxes: no sandbox matches "web-[3-9]"; use one of: web-*',
    ]


def test_globs_are_checked_even_where_something_else_is_wrong() -> None:
    found = mistakes(FLEET + "sed: 1\nsteps:\n  - pause: {sandboxes: db}\n")
    assert [line.split(":")[0] for line in found] == ["5", "7"]


def test_a_wave_is_waited_for() -> None:
    assert mistakes(FLEET + "steps:\n  - pause: {wave: true, until: returned}\n") == [
        "6:12: steps[0].pause: with `until: returned` more pauses begin while a wave is copied; remove one of the two"
    ]


def test_a_fleet_larger_than_its_node_is_a_mistake() -> None:
    steps = "steps:\n  - tick: 1\n"
    assert mistakes(FLEET + "node: {memory: 96MiB}\n" + steps) == []
    assert mistakes(FLEET + "node: {memory: 64MiB}\n" + steps) == [
        "3:1: fleet: the fleet needs 96MiB, the node has 64MiB; make the fleet smaller or raise node.memory"
    ]


def test_a_fleet_of_too_many_sandboxes_is_one_mistake_and_none_of_them_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.files.checks.sandbox_specs", lambda _: pytest.fail("they were made"))
    groups = "".join(f"  - {{name: w{number}, count: 10000, memory: 4KiB}}\n" for number in range(11))
    found = mistakes(f"version: 1\nname: many\nfleet:\n{groups}steps:\n  - tick: 1\n")
    assert [each.partition("fleet: ")[2] for each in found] == [
        "the fleet has 110,000 sandboxes, at most 100,000 can be run; make its groups smaller"
    ]


def test_a_glob_is_looked_for_once_and_after_fifty_without_a_match_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def counted(name: str, glob: str) -> bool:
        looked.append(glob)
        return False

    monkeypatch.setattr("sim.files.checks.fnmatchcase", counted)
    same = "".join("  - kill: {sandboxes: gone}\n" for _ in range(40))
    others = "".join(f"  - kill: {{sandboxes: gone-{number}}}\n" for number in range(200))
    found = mistakes(FLEET + f"steps:\n{same}{others}")
    assert (looked.count("gone"), len(set(looked))) == (3, 51)  # a fleet of three
    assert found[-1] == "and 40 more"  # 40 of one glob and 50 others are known; fifty are shown


def test_two_groups_of_one_name_are_a_mistake() -> None:
    assert mistakes(FLEET + "  - {name: web, memory: 4KiB}\nsteps:\n  - tick: 1\n") == [
        '5:12: fleet[1].name: a second group "web"; sandbox names must be unique, give it another name'
    ]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("memory: 3MiB, page_size: 2MiB", "expected a multiple of 2MiB, got 3MiB"),
        ("memory: 3MiB, block_size: 2MiB", "expected a multiple of 2MiB, got 3MiB"),
        ("memory: 0MiB", "expected a multiple of 4KiB, got 0B"),
    ],
)
def test_memory_is_whole_pages_and_whole_blocks(group: str, message: str) -> None:
    text = f"name: s\nfleet:\n  - {{name: web, {group}}}\nsteps:\n  - tick: 1\n"
    assert mistakes(text) == [f"3:25: fleet[0].memory: {message}"]


def test_a_flag_file_and_inline_flags_do_not_mix() -> None:
    found = mistakes(FLEET + "flags: {file: no.json, memfd-background-copy: true}\nsteps:\n  - tick: 1\n")
    assert found[1:] == ["5:24: flags.memfd-background-copy: unknown key; use one of: file, lease, obey_unsafe"]


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "", "x" * 61])
def test_a_name_that_cannot_name_a_run_s_folder_is_refused(name: str) -> None:
    found = mistakes(f'name: "{name}"\nfleet:\n  - {{name: web, memory: 4KiB}}\nsteps:\n  - tick: 1\n')
    assert [line[:39] for line in found] == ["1:7: name: expected a short name of a-z"]


def test_the_smallest_wrong_files_say_what_is_missing() -> None:
    assert mistakes("version: 1") == [f"1:1: {key}: missing; it is required" for key in ("fleet", "name", "steps")]
    assert mistakes("name: s\nfleet: []\nsteps: []") == [
        "2:8: fleet: expected at least one entry, got none",
        "3:8: steps: expected at least one entry, got none",
    ]
    assert mistakes("name: s\nfleet: 3\nsteps: {tick: 1}") == [
        "2:8: fleet: expected a list, got 3",
        "3:8: steps: expected a list, got a mapping",
    ]


PLAIN = "name: plain\nfleet:\n  - {name: web, memory: 4MiB}\nsteps:\n  - tick: 1\n"


def test_a_step_that_needs_a_node_after_a_crash_is_a_mistake() -> None:
    found = mistakes(PLAIN + "  - crash: {}\n  - expect: {state: running}\n  - wait: 1ms\n  - pause: {}\n  - tick: 1\n")
    assert found == ["9:5: steps[4]: the node is down after a crash; put a restart step before pause"]


@pytest.mark.parametrize("between", ["  - restart: {}\n", "  - crash: {at: {fault: punch}}\n  - restart: {}\n"])
def test_after_a_restart_there_is_a_node_again(between: str) -> None:
    load_text(PLAIN + "  - crash: {}\n" + between + "  - pause: {}\n", pathlib.Path("s.yaml"))


def test_an_armed_crash_leaves_the_node_up_for_all_that_a_file_can_tell() -> None:
    load_text(PLAIN + "  - crash: {at: {fault: punch}}\n  - pause: {}\n", pathlib.Path("s.yaml"))


def test_a_canary_of_a_metric_that_nothing_bounds_is_a_mistake() -> None:
    canary = "expect:\n  - {verdict: violated, metric: copy_ms}\n"
    assert mistakes(PLAIN + canary) == [
        "7:33: expect[0].metric: nothing bounds copy_ms, so it cannot be violated; add {metric: copy_ms, max: ...}"
    ]
    load_text(PLAIN + canary + "  - {metric: copy_ms, max: 0}\n", pathlib.Path("s.yaml"))
