"""junit.xml as its consumers read it: their parser, and the rules by which they tell cases apart."""

from __future__ import annotations

import pathlib
from collections import Counter

import pytest
from junitparser import Failure, JUnitXml, TestCase, TestSuite

from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.report.junit import suite, write_junit

RUN_DIR = pathlib.Path("runs/demo/20260102T030405Z-42")
SCENARIO = pathlib.Path("scenarios/demo.yaml")


@pytest.fixture
def read(tmp_path: pathlib.Path) -> TestSuite:
    started = events.RunStarted(
        1, "0", "r1", "demo", 42, [], "2026-01-02T03:04:05+00:00", 1 << 30, "disk", None
    )  # fmt: skip
    where, there = {"line": 14, "column": 5}, {"line": 13, "column": 5}
    judged = [
        events.Judged("invariant:bytes_exact", "held", 4),
        events.Judged("metric:peak_over", "held", 4, place=there),
        events.Judged(
            "metric:peak_over", "violated", 4, [{"sandbox": "*", "reason": "\x1b[1mtoo\nmuch\x00", **where}], where
        ),
    ]
    fold = Fold()
    fold.apply([Entry(0.0, started, None, None), *(Entry(1.5, each, None, None) for each in judged)])
    write_junit(tmp_path / "junit.xml", [suite(fold.view(), RUN_DIR, SCENARIO)])
    (found,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert isinstance(found, TestSuite)
    return found


def cases(read: TestSuite) -> list[TestCase]:
    return list(read)


def test_each_judgement_is_a_case_with_a_name_of_its_own(read: TestSuite) -> None:
    names = Counter((each.classname, each.name) for each in cases(read))
    wanted = ["run", "bytes_exact", "metric:peak_over (line 13)", "metric:peak_over (line 14)"]
    assert names == {("demo", name): 1 for name in wanted}


def test_the_case_of_the_run_has_its_time_and_so_has_the_suite(read: TestSuite) -> None:
    assert [each.time for each in cases(read)] == [1.5, 0.0, 0.0, 0.0]
    assert read.time == 1.5
    assert (read.tests, read.failures, read.errors, read.skipped) == (4, 1, 0, 0)


def test_the_timestamp_has_no_zone_as_the_format_wants_it(read: TestSuite) -> None:
    assert read.timestamp == "2026-01-02T03:04:05"


def test_a_failed_case_names_file_and_line_and_how_to_run_it_again(read: TestSuite) -> None:
    failed = cases(read)[3]
    (result,) = failed.result
    assert isinstance(result, Failure)
    attributes = dict(failed._elem.attrib)
    assert (attributes["file"], attributes["line"]) == ("scenarios/demo.yaml", "14")
    assert (result.message or "").startswith("\\x1b[1mtoo")
    assert "run again  snapdrill run scenarios/demo.yaml --seed 42 --runs-dir runs" in (result.text or "")


def test_seed_and_replay_are_properties(read: TestSuite) -> None:
    properties = {each.name: each.value for each in read.properties()}  # type: ignore[no-untyped-call]
    assert properties["seed"] == "42"
    assert properties["replay"] == f"snapdrill replay {RUN_DIR}"
