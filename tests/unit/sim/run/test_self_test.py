"""What the self-test makes of two runs: caught, survived, unsound, broken; its table, document and exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click.testing
import pytest

from engine.errors import UserError
from sim.commands.self_test import command
from sim.record.events import Judged
from sim.record.ledger import Entry
from sim.run import self_test
from sim.run.batch import Batch
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool
from sim.run.self_test import Trial, TrialResult
from sim.run.wrong_drills import DRILLS


def judged(subject: str, verdict: str, *reasons: str) -> Entry:
    return Entry(0.0, Judged(subject, verdict, 1, [{"reason": each} for each in reasons]), None, None)


VIOLATED = judged("invariant:no_unpublished", "violated", "freed too early")
OTHER = judged("invariant:no_leaks", "violated", "a process is left")
SUNG = judged("verdict:violated:invariant:no_unpublished", "held")
NAME = "punch-before-publish"


class Told(LocalPool):
    """A pool that runs nothing: results are told to it, by the unit's name."""

    def __init__(self, **results: UnitResult) -> None:
        super().__init__(1, 1)
        self.wrong = results.get("wrong", UnitResult("", "held", entries=(VIOLATED, SUNG), seconds=0.25))
        self.mended = results.get("mended", UnitResult("", "held"))
        self.units: list[Unit] = []

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        for unit in units:
            self.units.append(unit)
            result = self.mended if "mended" in unit.name else self.wrong
            yield UnitResult(unit.name, **{f: getattr(result, f) for f in ("verdict", "entries", "seconds", "error")})


def trial() -> Trial:
    return self_test.trials([NAME])[0]


def finding(tmp_path: Path, **results: UnitResult) -> TrialResult:
    (found,) = self_test.run([trial()], Told(**results), tmp_path, Batch(quiet=True))
    return found


def test_a_mutant_whose_checker_sees_it_is_caught(tmp_path: Path) -> None:
    found = finding(tmp_path)
    assert (found.outcome, found.why, found.seconds) == ("CAUGHT", "", 0.25)
    assert self_test.exit_code([found]) == 0


def test_each_trial_runs_with_the_wrong_engine_and_with_the_sound_one(tmp_path: Path) -> None:
    pool = Told()
    self_test.run([trial()], pool, tmp_path, Batch(quiet=True))
    wrong, mended = pool.units
    assert "engine: {mutant: punch-before-publish}" in wrong.text
    assert "engine" not in mended.text
    assert "invariant: no_unpublished" in mended.text


def test_a_mutant_that_no_checker_sees_survives(tmp_path: Path) -> None:
    found = finding(tmp_path, wrong=UnitResult("", "violated"))
    assert (found.outcome, found.why) == ("SURVIVED", "its rule saw no violation")
    assert self_test.exit_code([found]) == 1


def test_a_mutant_that_only_another_checker_sees_survives(tmp_path: Path) -> None:
    assert finding(tmp_path, wrong=UnitResult("", "violated", entries=(OTHER,))).outcome == "SURVIVED"


def test_a_mutant_that_breaks_more_than_its_scenario_expects_is_no_proof(tmp_path: Path) -> None:
    found = finding(tmp_path, wrong=UnitResult("", "violated", entries=(VIOLATED, SUNG, OTHER)))
    assert (found.outcome, found.why) == ("SURVIVED", "not as the scenario expects: no_leaks: a process is left")


def test_a_scenario_that_the_sound_engine_violates_proves_nothing(tmp_path: Path) -> None:
    found = finding(tmp_path, mended=UnitResult("", "violated", entries=(OTHER,)))
    assert found.outcome == "UNSOUND"
    assert found.why == "with the correct engine it is violated: no_leaks: a process is left"
    assert self_test.exit_code([found]) == 1


def test_a_run_that_broke_is_no_verdict(tmp_path: Path) -> None:
    found = finding(tmp_path, wrong=UnitResult("", None, error="Traceback\n  ...\nValueError: broken\n"))
    assert (found.outcome, found.why) == ("FAILED", f"{NAME}: ValueError: broken")
    assert self_test.exit_code([found]) == 70


def test_what_the_host_cannot_run_is_skipped_by_name_and_not_run(tmp_path: Path) -> None:
    pool, able = Told(), trial()
    unable = Trial(able.name, able.wrong, able.scenario, "it requires root")
    (found,) = self_test.run([unable], pool, tmp_path, Batch(quiet=True))
    assert (found.outcome, found.why, pool.units) == ("SKIPPED", "it requires root", [])
    assert self_test.exit_code([found]) == 4
    assert self_test.exit_code([found, TrialResult(able, "CAUGHT")]) == 0
    assert self_test.exit_code([TrialResult(able, "CAUGHT"), TrialResult(able, "SURVIVED")]) == 1


def test_the_table_tells_each_sentence_and_counts(tmp_path: Path) -> None:
    text = self_test.table([finding(tmp_path), TrialResult(trial(), "SURVIVED", 1.0, "nobody looked", Path("runs/x"))])
    assert f"{NAME}  CAUGHT by no_unpublished after 0.2 s" in text
    assert "a chunk is freed from the memfd before its readers may have it from the cache" in " ".join(text.split())
    assert f"SURVIVED in {NAME}.yaml: nobody looked; must be caught by no_unpublished" in " ".join(text.split())
    assert "look at it: snapdrill replay runs/x" in text
    assert text.endswith("2 wrong engines: 1 CAUGHT, 1 SURVIVED; score: 1 of 2 caught")


def test_the_document_names_the_survivors(tmp_path: Path) -> None:
    document = self_test.document([finding(tmp_path, wrong=UnitResult("", "held"))])
    assert json.loads(json.dumps(document)) == document
    assert (document["exit_code"], document["survivors"]) == (1, [NAME])
    assert document["engines"][0]["caught_by"] == "invariant:no_unpublished"


def test_globs_choose_and_unknown_names_are_refused() -> None:
    assert [each.name for each in self_test.trials(["record-*"])] == ["record-after-punch", "record-retired-early"]
    assert {each.name.partition(":")[0] for each in self_test.trials(["pr-2902:*"])} == {"pr-2902"}
    with pytest.raises(UserError, match='no wrong engine or drill is called "scan-rearm"; did you mean "scan-rearms"'):
        self_test.trials(["scan-rearm"])


def test_one_pattern_chooses_engines_another_one_drills() -> None:
    assert (self_test.trials(["exit-code-lies"]), self_test.drills(["record-*"])) == ([], [])
    assert [each.name for each in self_test.drills(["exit-*", "half-blind:no_*"])] == [
        "half-blind:no_leaks",
        "half-blind:no_unpublished",
        "exit-code-lies",
    ]


def test_a_drill_that_survives_is_named_and_decides(tmp_path: Path) -> None:
    (drill,) = self_test.drills(["exit-code-lies"])
    results = [finding(tmp_path), TrialResult(drill, "SURVIVED", 1.0, "all agree")]
    assert self_test.exit_code(results) == 1
    assert self_test.document(results)["survivors"] == ["exit-code-lies"]
    text = self_test.table(results)
    assert "SURVIVED in death-awaited-late.yaml: all agree; must be caught by exit-code" in " ".join(text.split())
    assert text.endswith("1 wrong engine and 1 wrong drill: 1 CAUGHT, 1 SURVIVED; score: 1 of 2 caught")


def test_the_command_lists_every_wrong_engine_and_drill() -> None:
    result = click.testing.CliRunner().invoke(command, ["--list"])
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [*self_test.names(), *DRILLS]
    assert max(map(len, lines)) <= 80
