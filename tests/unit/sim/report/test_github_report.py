"""What GitHub Actions is told: workflow commands that nothing in a message can break out of, and the step's summary."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report import github
from sim.report.github import Annotation

RUN_DIR = pathlib.Path("runs/demo/20260102T030405Z-42")
SCENARIO = pathlib.Path("scenarios/demo.yaml")
STARTED = events.RunStarted(1, "0.1.0", "r1", "demo", 42, [], "2026-01-02T03:04:05Z", 1 << 30, "disk", None)


def view_of(*judged: events.Judged, verdict: str | None = "violated") -> View:
    made = events.SandboxCreated(1 << 22, 4096, 4096, "python", "acme", "local")
    entries = [Entry(0.0, STARTED, None, None), Entry(0.1, made, "web-1", None)]
    entries += [Entry(1.0, each, None, None) for each in judged]
    if verdict is not None:
        code = {"held": 0, "violated": 1, "inconclusive": 3}[verdict]
        entries.append(Entry(2.0, events.RunEnded(verdict, code, {}, "d" * 64, 0), None, None))
    fold = Fold()
    fold.apply(entries)
    return fold.view()


def violated(**more: Any) -> events.Judged:
    found = {"sandbox": "web-1", "reason": "page differs", "line": 14, "column": 5, **more}
    return events.Judged("invariant:bytes_exact", "violated", 4, [found])


def test_an_annotation_points_at_the_line_and_says_how_to_run_it_again() -> None:
    (line,) = github.commands(github.annotate(view_of(violated()), RUN_DIR, SCENARIO))
    assert line == (
        "::error file=scenarios/demo.yaml,line=14,col=5,title=demo%3A bytes_exact violated"
        "::web-1: page differs (seed 42)%0A"
        "run again: snapdrill run scenarios/demo.yaml --seed 42 --only web-1 --runs-dir runs"
    )


def test_what_a_message_holds_cannot_end_the_command_or_begin_another() -> None:
    nasty = Annotation("error", "a,b:c%\n::warning::x", "50%\r\n::stop-commands::x\x1b[2J", "a,b:c.yaml", 1)
    command = nasty.command()
    assert command == (
        "::error file=a%2Cb%3Ac.yaml,line=1,title=a%2Cb%3Ac%25%0A\\x3a%3Awarning%3A%3Ax"
        "::50%25\\r%0A\\x3a:stop-commands::x\\x1b[2J"
    )


def test_an_inconclusive_judgement_is_an_error_too_because_it_fails_the_step() -> None:
    judged = events.Judged("metric:peak_over", "inconclusive", 0, [{"sandbox": "*", "reason": "no pause"}])
    (found,) = github.annotate(view_of(judged, verdict="inconclusive"), RUN_DIR, SCENARIO)
    assert (found.level, found.title, found.line) == ("error", "demo: metric:peak_over inconclusive", None)
    assert "--only" not in found.message


def test_a_run_that_was_cut_off_is_an_error_although_nothing_was_judged() -> None:
    (found,) = github.annotate(view_of(verdict=None), RUN_DIR, SCENARIO)
    assert (found.title, found.message) == ("demo: inconclusive", "the record was cut off: there is no verdict")


def test_a_run_that_held_has_nothing_to_annotate_not_even_a_canary_that_was_caught() -> None:
    assert github.annotate(view_of(violated(), verdict="held"), RUN_DIR, SCENARIO) == []


def test_no_more_are_printed_of_a_level_than_github_shows_and_the_last_counts_the_rest() -> None:
    many = [Annotation("error", f"t{number}", "m") for number in range(13)]
    lines = github.commands([*many, Annotation("notice", "n", "m")])
    assert len(lines) == 11
    assert lines[9] == "::error title=t9::m%0Aand 3 more: see the log and the step's summary"
    assert lines[10].startswith("::notice ")


def test_a_file_below_the_checkout_is_named_relative_to_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    (inside,) = github.annotate(view_of(violated()), RUN_DIR, tmp_path / "a" / "demo.yaml")
    (outside,) = github.annotate(view_of(violated()), RUN_DIR, tmp_path.parent / "demo.yaml")
    assert inside.file == "a/demo.yaml"
    assert outside.file == str(tmp_path.parent / "demo.yaml")


def test_the_summary_opens_with_the_verdict_and_its_reason() -> None:
    text = github.section(view_of(violated()), RUN_DIR, SCENARIO)
    assert text.startswith("### VIOLATED: demo (seed 42)\n\nbytes_exact: page differs\n\n")
    assert "| bytes_exact | violated | 4 | 1 |" in text
    assert "VIOLATED bytes_exact\n" in text


def test_markup_in_a_reason_is_shown_and_not_obeyed() -> None:
    nasty = "<img src=x> | [a](b) `c`\n```\n# d"
    text = github.section(view_of(violated(reason=nasty)), RUN_DIR, SCENARIO)
    assert "bytes_exact: &lt;img src=x> \\| \\[a\\](b) \\`c\\` \\`\\`\\` \\# d" in text
    assert "\n````text\n" in text
    assert text.rstrip().endswith("````\n\n</details>")


def test_sections_are_appended_to_what_the_step_wrote_before(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    github.append_summary(["### one\n", "### two\n"], {"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text() == "before\n### one\n\n### two\n"


def test_a_summary_that_would_be_too_long_leaves_out_and_says_so(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "summary.md"
    sections = ["x" * (300 << 10)] * 5
    github.append_summary(sections, {"GITHUB_STEP_SUMMARY": str(path)})
    text = path.read_text()
    assert len(text.encode()) <= github.SUMMARY_LIMIT
    assert text.endswith("2 scenarios more: a step's summary has no room for them; see the log\n")


def test_nothing_is_appended_where_github_gives_no_file() -> None:
    github.append_summary(["### one\n"], {})


def test_only_githubs_own_word_turns_it_on() -> None:
    assert github.is_on({"GITHUB_ACTIONS": "true"})
    assert not github.is_on({})
    assert not github.is_on({"GITHUB_ACTIONS": "false"})
