"""Summary, failure block, documents and JUnit, all from views folded from entries written here."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from engine.events import ChunkPunched, Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report import failure
from sim.report.document import run_document, scenario_document, write_document
from sim.report.junit import suite, write_junit
from sim.report.text import summary
from sim.report.words import scrub

MIB = 1 << 20
PUNCH = "memfd-punch-on-snapshot"
RUN_DIR = pathlib.Path("runs/demo/20260102T030405Z-42")
SCENARIO = pathlib.Path("scenarios/demo.yaml")


def started(mutant: str | None = None) -> events.RunStarted:
    moment = "2026-01-02T03:04:05Z"
    return events.RunStarted(
        1, "0.1.0", "r1", "demo", 42, [], moment, 1 << 30, "disk", mutant, host={"cpus": 2}
    )  # fmt: skip


def ended(verdict: str = "held", exit_code: int = 0) -> events.RunEnded:
    return events.RunEnded(verdict, exit_code, {"running": 2}, "a" * 64, 70 * MIB)


def decided(punch: bool, background: bool = True) -> events.Decided:
    return events.Decided(
        {
            PUNCH: {"value": punch, "reason": "FALLTHROUGH", "variation": 0, "version": 1},
            "memfd-background-copy": {"value": background, "reason": "OFF", "variation": 1, "version": 1},
        }
    )


def settled(punch: bool, outcome: str = "finished", **changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": outcome,
        "path": "memfd-background",
        "punch": punch,
        "punch_reason": "",
        "dirty_bytes": 32 * MIB,
        "punched_bytes": 32 * MIB if punch else 0,
        "peak_over": MIB if punch else 32 * MIB,
        "peak_ratio": 1.03 if punch else 2.0,
        "copier_bytes": 4 * MIB,
        "copy_ms": 12.5,
        "blocked_ms": 3.25,
        "condemned": punch,
        "build": "b1",
        "content_hash": "c1",
    }
    return events.PauseSettled(**fields | changes)


def pause(sandbox: str, number: int, t: float, *facts: Event) -> list[Entry]:
    return [Entry(t + index / 10, fact, sandbox, f"{sandbox}.p{number}") for index, fact in enumerate(facts)]


def fleet() -> list[Entry]:
    entries = [Entry(0.0, started(), None, None)]
    for name in ("web-0", "web-1"):
        made = events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local")
        guest = events.GuestSpawned(f"{name}.1", 100, 1, 7, 3, 4, "write-protect-scan", 1.5, None)
        entries += [
            Entry(0.1, made, name, None),
            Entry(0.2, guest, name, None),
            Entry(0.3, events.StateChanged("created", "running", "spawned"), name, None),
        ]
    return entries


def both_ways() -> list[Entry]:
    """Each of two sandboxes paused with the flag off, then with it on."""
    entries = fleet()
    for number, punch in ((1, False), (2, True)):
        entries.append(Entry(number, events.StepStarted(number, "pause", 10 + number, 5), None, None))
        for name in ("web-0", "web-1"):
            entries += pause(name, number, number + 0.1, decided(punch), settled(punch))
    return entries


def view_of(entries: Sequence[Entry], *last: Event) -> View:
    fold = Fold()
    fold.apply([*entries, *(Entry(9.0, event, None, None) for event in last)])
    return fold.view()


def violation(**more: Any) -> dict[str, Any]:
    return {"sandbox": "web-1", "incarnation": "web-1.2", "pause": "web-1.p2", "reason": "page differs", **more}


def violated(subject: str = "invariant:bytes_exact", *violations: dict[str, Any]) -> events.Judged:
    return events.Judged(subject, "violated", 4, list(violations) or [violation()])


def broken() -> View:
    return view_of(both_ways(), violated(), ended("violated", 1))


# -- summary


def test_the_summary_shows_both_peaks_of_a_flag_one_below_the_other() -> None:
    text = summary(view_of(both_ways(), ended()))
    rows = [line.split() for line in text.splitlines() if "flag o" in line]
    assert rows == [
        ["flag", "off", "2", "2.00x", "+32.0", "MiB", "4.0", "MiB", "0", "-"],
        [*["flag", "on", "2", "1.03x", "+1.0", "MiB", "4.0", "MiB", "2", "64.0", "MiB"]],
    ]


def test_the_summary_opens_with_name_seed_verdict_and_tracker() -> None:
    first, second = summary(view_of(both_ways(), ended())).splitlines()[:2]
    assert first == "demo   seed 42   HELD"
    assert second == "2 sandboxes, 64.0 MiB of guest memory; dirty blocks from write-protect-scan"


@pytest.mark.parametrize(("machines", "said"), [(["web-0"], "1"), (["web-0", "web-1"], "all")])
def test_the_summary_says_how_many_sandboxes_were_virtual_machines(machines: list[str], said: str) -> None:
    spawned = [
        Entry(0.2, events.GuestSpawned(f"{name}.1", 100, 1, 7, 3, 4, "scan", 1.5, None, guest="vm"), name, None)
        for name in machines
    ]
    second = summary(view_of(both_ways() + spawned, ended())).splitlines()[1]
    assert second.startswith(f"2 sandboxes, {said} of them virtual machines, 64.0 MiB of guest memory; ")


def test_a_flag_decided_only_one_way_gets_no_table_unless_it_punches() -> None:
    text = summary(view_of([*fleet(), *pause("web-0", 1, 1.0, decided(False), settled(False))], ended()))
    assert re.search(r"^  flag off +1 +2.00x", text, re.MULTILINE)
    assert "flag on" not in text
    assert "memfd-background-copy" not in text


def test_a_pause_without_a_memfd_has_no_peak_to_show() -> None:
    facts = decided(False), settled(False, peak_over=None, peak_ratio=None, path="process")
    assert "not measured" in summary(view_of([*fleet(), *pause("web-0", 1, 1.0, *facts)], ended()))


def test_outcomes_are_counted_by_what_became_of_the_pauses() -> None:
    entries = both_ways() + pause("web-0", 3, 4.0, settled(False, "rolled-back"))
    entries += pause("web-1", 3, 4.0, settled(True, "discarded")) + pause("web-1", 4, 5.0, decided(True))
    text = summary(view_of(entries, ended()))
    assert "pauses      4 paused, 1 rolled back, 1 discarded, 1 not settled" in text


def test_an_invariant_that_nothing_checked_is_not_called_held() -> None:
    judged = events.Judged("invariant:rollback_intact", "held", 0), events.Judged("invariant:bytes_exact", "held", 4)
    lines = summary(view_of(both_ways(), *judged, ended())).splitlines()
    assert "  not exercised  rollback_intact" in lines
    assert "  held           bytes_exact      checked 4 times" in lines


def test_an_expectation_that_was_met_without_a_match_stays_held() -> None:
    judged = events.Judged("metric:peak_over", "held", 0)
    assert "  held  metric:peak_over  checked 0 times" in summary(view_of(both_ways(), judged, ended()))


def test_a_record_without_a_last_line_is_called_cut_off() -> None:
    assert summary(view_of(both_ways())).startswith("demo   seed 42   INCONCLUSIVE (the record was cut off)")


def test_a_wrong_engine_is_named() -> None:
    entries = [Entry(0.0, started("resume-after-punch"), None, None), *both_ways()[1:]]
    banner = "ENGINE: resume-after-punch (wrong on purpose)"
    assert summary(view_of(entries, ended())).startswith(banner + "\ndemo   seed 42")


def test_the_document_names_what_was_mended_of_a_profile() -> None:
    run = dataclasses.replace(started(), profile="pr-2902", mended=["not-gated"])
    document = scenario_document(view_of([Entry(0.0, run, None, None), *both_ways()[1:]], ended()))
    assert document["engine"] == {"mutant": None, "profile": "pr-2902", "mended": ["not-gated"]}


def test_shmem_pages_are_said_to_stand_in_for_hugetlb() -> None:
    assert "SHOWN ON A STAND-IN (4 KiB shmem for 2 MiB hugetlb)" in summary(view_of(both_ways(), ended()))


def test_the_nodes_memory_is_told_as_measured_against_the_given_budget() -> None:
    text = summary(view_of(both_ways(), dataclasses.replace(ended(), cgroup_peak=90 * MIB)), RUN_DIR)
    assert "memory      at most 70.0 MiB in guests and caches (measured) of 1.0 GiB (given)\n" in text
    assert "cgroup      at most 90.0 MiB, the processes themselves included (measured)\n" in text
    assert text.endswith(f"digest      {'a' * 12}\nrun folder  {RUN_DIR}")


def test_the_summary_of_nothing_is_still_a_text() -> None:
    assert "a run without a first line" in summary(View())


# -- failure block


def test_the_block_names_place_seed_sandbox_page_content_and_decision() -> None:
    worst = violation(page=1021, expected="0011", found="0000", line=14, column=5)
    view = view_of(both_ways(), violated("invariant:bytes_exact", worst), ended("violated", 1))
    lines = [line.strip() for line in failure.failure_block(view, RUN_DIR, SCENARIO).splitlines()]
    assert lines[:9] == [
        "VIOLATED bytes_exact",
        "where      scenarios/demo.yaml:14:5",
        "seed       42",
        "sandbox    web-1 (incarnation web-1.2, pause web-1.p2)",
        "page       1021",
        "expected   0011",
        "found      0000",
        "reason     page differs",
        f"decision   {PUNCH} on (FALLTHROUGH), memfd-background-copy on (OFF)",
    ]


def test_a_violation_without_a_line_is_placed_at_the_step_of_its_pause() -> None:
    assert "where      scenarios/demo.yaml:12:5\n" in failure.failure_block(broken(), RUN_DIR, SCENARIO)


def test_the_block_ends_with_two_commands_a_shell_can_run() -> None:
    scenario = pathlib.Path("my scenarios/demo.yaml")
    again, look = failure.failure_block(broken(), RUN_DIR, scenario).splitlines()[-2:]
    assert shlex.split(again)[2:] == [
        *("snapdrill", "run", "my scenarios/demo.yaml", "--seed", "42", "--only", "web-1", "--runs-dir", "runs")
    ]
    assert shlex.split(look)[3:] == ["snapdrill", "replay", str(RUN_DIR), "--sandbox", "web-1"]


def test_a_run_whose_guests_the_command_line_chose_is_run_again_with_them() -> None:
    view = broken()
    assert view.run is not None
    view = dataclasses.replace(view, run=dataclasses.replace(view.run, guest="vm"))
    assert "scenarios/demo.yaml --guest vm --seed 42 " in failure.run_command(view, RUN_DIR, SCENARIO)
    assert "--guest" not in failure.run_command(view, RUN_DIR, RUN_DIR / "scenario.yaml")  # which says it itself


def test_the_last_events_are_those_of_the_sandbox_and_of_everybody() -> None:
    noise = [
        Entry(8.0, events.GuestMeasured(MIB), "web-1", None),
        Entry(8.1, events.GuestThawed("web-0.1"), "web-0", None),
        Entry(8.2, events.FlagSet(PUNCH, True), None, None),
    ]
    block = failure.failure_block(view_of(both_ways() + noise, violated(), ended("violated", 1)), RUN_DIR, SCENARIO)
    told = block.partition("last events\n")[2]
    assert f"   8.200 s  flag {PUNCH} is now on" in told
    assert "web-1 copied " in told
    assert "web-0" not in told
    assert "holds" not in told


def test_the_whole_ledger_may_be_told_from_where_the_view_keeps_only_the_end() -> None:
    early = Entry(0.5, events.GuestThawed("web-1.1"), "web-1", None)
    chunks = [Entry(8.0, ChunkPunched(number, 4096), "web-1", "web-1.p2") for number in range(600)]
    view = view_of([*both_ways(), *chunks], violated(), ended("violated", 1))
    assert "web-1" not in failure.failure_block(view, RUN_DIR, SCENARIO).partition("last events")[2].partition("run")[0]
    told = failure.failure_block(view, RUN_DIR, SCENARIO, [early, *chunks]).partition("last events\n")[2]
    assert told.splitlines()[0] == "       0.500 s  web-1 runs on (web-1.1)"
    assert "chunk" not in told


def test_a_violation_of_nobody_in_particular_names_no_sandbox() -> None:
    view = view_of(
        both_ways(), violated("invariant:no_leaks", *[violation(sandbox="*", pause=None)] * 2), ended("violated", 1)
    )
    block = failure.failure_block(view, RUN_DIR, SCENARIO)
    assert "*" not in block
    assert "--only" not in block


def test_further_violations_are_counted_and_their_sandboxes_named() -> None:
    many = [violation(sandbox=f"web-{number}") for number in range(9)]
    view = view_of(both_ways(), violated("invariant:bytes_exact", *many), ended("violated", 1))
    block = failure.failure_block(view, RUN_DIR, SCENARIO)
    assert "8 more violations: web-1, web-2, web-3, web-4, web-5, ..." in block


def test_long_content_is_cut() -> None:
    view = view_of(both_ways(), violated("invariant:bytes_exact", violation(found="0" * 8192)), ended("violated", 1))
    assert "... (8192 characters)" in failure.failure_block(view, RUN_DIR, SCENARIO)


def test_an_inconclusive_judgement_has_a_block_without_a_sandbox() -> None:
    judged = events.Judged("metric:peak_over", "inconclusive", 0, [{"reason": "no pause passes the filter"}])
    block = failure.failure_block(view_of(both_ways(), judged, ended("inconclusive", 3)), RUN_DIR, SCENARIO)
    assert block.startswith("INCONCLUSIVE metric:peak_over\n  where      scenarios/demo.yaml\n")
    assert "no pause passes the filter" in block
    assert "--only" not in block


def test_a_run_that_held_has_no_block_not_even_for_a_canary_that_was_caught() -> None:
    assert failure.failure_block(view_of(both_ways(), violated(), ended()), RUN_DIR, SCENARIO) == ""


# -- documents


def test_the_document_of_a_scenario_has_exactly_the_agreed_keys() -> None:
    document = scenario_document(view_of(both_ways(), events.Judged("invariant:bytes_exact", "held", 4), ended()))
    assert list(document) == [
        *("name", "seed", "verdict", "digest", "engine", "host", "invariants", "expectations", "kill_switch"),
        *("known_after", "pauses", "sandboxes"),
    ]
    assert document["invariants"] == [{"name": "bytes_exact", "verdict": "held", "checked": 4, "violations": []}]
    assert document["sandboxes"][0] == {"name": "web-0", "guest": "process", "state": "running", "stop_reason": None}
    assert document["host"] == {"cpus": 2}


def test_a_pause_in_the_document_has_its_decision_and_figures() -> None:
    last = scenario_document(view_of(both_ways(), ended()))["pauses"][-1]
    assert last == {
        "sandbox": "web-1",
        "decision": {
            PUNCH: {"value": True, "reason": "FALLTHROUGH"},
            "memfd-background-copy": {"value": True, "reason": "OFF"},
        },
        "path": "memfd-background",
        "punch": True,
        "outcome": "finished",
        "dirty_bytes": 32 * MIB,
        "punched_bytes": 32 * MIB,
        "peak_over": MIB,
        "peak_ratio": 1.03,
        "copier_bytes": 4 * MIB,
        "copy_ms": 12.5,
        "blocked_ms": 3.25,
        "cpu_seconds": None,
        "checkpoint": False,
        "consumed": True,
        "outcome_code": "finished",
        "read": False,
        "read_while_copied": False,
        "reader_waited_ms": None,
        "paced": False,
        "notes": [],
    }


def test_expectations_go_in_a_list_of_their_own_under_their_whole_subject() -> None:
    document = scenario_document(view_of(both_ways(), events.Judged("metric:peak_over", "held", 2), ended()))
    assert document["invariants"] == []
    assert [each["name"] for each in document["expectations"]] == ["metric:peak_over"]


@pytest.mark.parametrize(
    ("verdicts", "exit_code", "verdict"),
    [
        (["held", "held"], 0, "held"),
        (["held", "inconclusive", "violated"], 1, "violated"),
        (["inconclusive", "held"], 3, "inconclusive"),
        ([], 5, None),
    ],
)
def test_the_run_document_ends_with_the_worst_of_its_scenarios(
    verdicts: list[str], exit_code: int, verdict: str | None
) -> None:
    document = run_document([{"verdict": each} for each in verdicts])
    assert (document["version"], document["exit_code"], document["verdict"]) == (1, exit_code, verdict)


def test_an_interrupted_run_says_so_whatever_its_scenarios_say() -> None:
    document = run_document([{"verdict": "held"}], exit_code=130)
    assert (document["exit_code"], document["verdict"]) == (130, None)


def test_a_document_is_written_whole_and_reads_back(tmp_path: pathlib.Path) -> None:
    document = scenario_document(broken())
    write_document(tmp_path / "report.json", document)
    assert json.loads((tmp_path / "report.json").read_text()) == document
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert document["pauses"]
    whole = {"version": 1, "scenarios": [document, {}], "empty": [], "keys": {7: (2,), True: {None: 0.5}}}
    write_document(tmp_path / "report.json", whole)
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(whole))
    assert text.count('\n        {"sandbox": "web-') == len(document["pauses"])  # each on its line


# -- JUnit


def written(tmp_path: pathlib.Path, view: View) -> ET.Element:
    write_junit(tmp_path / "junit.xml", [suite(view, RUN_DIR, SCENARIO)])
    found = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite")  # noqa: S314 - written just now
    assert found is not None
    return found


def test_each_judgement_is_a_case_of_its_kind(tmp_path: pathlib.Path) -> None:
    judged = (
        events.Judged("invariant:never_resumed", "held", 4),
        events.Judged("invariant:rollback_intact", "held", 0),
        events.Judged("metric:peak_over", "inconclusive", 0, [{"reason": "no pause passes the filter"}]),
        violated(),
    )
    found = written(tmp_path, view_of(both_ways(), *judged, ended("violated", 1)))
    kinds = {case.get("name"): [(child.tag, child.get("type")) for child in case] for case in found.iter("testcase")}
    assert kinds == {
        "run": [],
        "never_resumed": [],
        "rollback_intact": [("skipped", None)],
        "metric:peak_over": [("error", "Inconclusive")],
        "bytes_exact": [("failure", "Violated")],
    }
    assert (found.get("tests"), found.get("failures"), found.get("errors"), found.get("skipped")) == ("5",) + ("1",) * 3


def test_seed_and_replay_are_properties_of_the_suite_and_come_first(tmp_path: pathlib.Path) -> None:
    found = written(tmp_path, broken())
    properties = {each.get("name"): each.get("value") for each in found[0]}
    assert found[0].tag == "properties"
    assert properties["seed"] == "42"
    assert properties["replay"] == f"snapdrill replay {RUN_DIR}"


def test_control_characters_in_a_reason_do_not_break_the_file(tmp_path: pathlib.Path) -> None:
    nasty = violation(reason="page \x00\x1b[31m\ud800 differs", found="\x07")
    found = written(tmp_path, view_of(both_ways(), violated("invariant:bytes_exact", nasty), ended("violated", 1)))
    failed = found.find(".//failure")
    assert failed is not None
    assert failed.get("message") == "page \\x00\\x1b[31m\\ud800 differs"
    assert "run again" in (failed.text or "")


def test_scrubbing_leaves_what_xml_can_hold() -> None:
    assert scrub("tab\tline\nünï \U0001f600") == "tab\tline\nünï \U0001f600"


@pytest.mark.parametrize("verdict", ["violated", "inconclusive"])
def test_a_canary_that_was_caught_passes(tmp_path: pathlib.Path, verdict: str) -> None:
    judged = dataclasses.replace(violated(), verdict=verdict)
    found = written(tmp_path, view_of(both_ways(), judged, ended()))
    assert (found.get("failures"), found.get("errors")) == ("0", "0")
    assert found.findtext(".//system-out") == f"{verdict}, as the scenario expects"


def test_a_run_that_was_cut_off_is_an_error_although_nothing_was_judged(tmp_path: pathlib.Path) -> None:
    found = written(tmp_path, view_of(both_ways()))
    assert [(each.tag, each.get("type")) for each in found.iterfind("testcase/*")] == [("error", "Inconclusive")]
