from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flags.catalog import CATALOG, PUNCH
from sim.record import events, source_events
from sim.record.view import FlagChange, PauseView, SandboxView, SourceView, View
from sim.tui import flag_lines
from sim.tui.flag_lines import FlagDraft, cohort_now
from sim.tui.spans import text, width

MIB = 1 << 20
RUN = events.RunStarted(1, "0", "run", "demo", 42, [], "", 1024 * MIB, "disk", None, flag_source="relay")
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running")
SANDBOXES = {f"web-{number}": replace(WEB, name=f"web-{number}") for number in range(12)}
HALF = {"rollout": "50%", "by": "sandbox"}
VIEW = View(t=9.0, run=RUN, node="up", sandboxes=SANDBOXES, flags={PUNCH: HALF})


def said(view: View, draft: FlagDraft | None = None, cells: int = 100) -> str:
    lines = flag_lines.detail(view, PUNCH, draft or flag_lines.draft_of(view, PUNCH), cells, 20)
    assert all(width(line) <= cells for line in lines)
    return "\n".join(map(text, lines))


def leased(*, is_open: bool, age: float | None) -> View:
    return replace(VIEW, source=SourceView(lease=source_events.LeaseMeasured(is_open, age, 2.0), lease_t=8.0))


@pytest.mark.parametrize(
    ("value", "draft"),
    [(True, FlagDraft(100, "sandbox")), (False, FlagDraft(0, "sandbox")), (HALF, FlagDraft(50, "sandbox"))],
)
def test_a_draft_begins_with_what_is_in_force(value: Any, draft: FlagDraft) -> None:
    assert flag_lines.draft_of(replace(VIEW, flags={PUNCH: value}), PUNCH) == draft


def test_a_draft_stays_between_nobody_and_everybody() -> None:
    assert FlagDraft(95, "team").changed(10) == FlagDraft(100, "team")
    assert FlagDraft(5, "team").changed(-10) == FlagDraft(0, "team")
    kinds = [FlagDraft(5, "sandbox")]
    for _ in range(4):
        kinds.append(kinds[-1].by_next())
    assert [each.by for each in kinds] == ["sandbox", "team", "template", "cluster", "sandbox"]


def test_the_cohort_is_what_launchdarkly_evaluates() -> None:
    assert cohort_now(replace(VIEW, flags={PUNCH: True}), PUNCH) == tuple(SANDBOXES)
    assert cohort_now(replace(VIEW, flags={}), PUNCH) == ()
    half = cohort_now(VIEW, PUNCH)
    assert half is not None
    assert 0 < len(half) < 12
    assert f"cohort  {len(half)} of 12: {half[0]}" in said(VIEW)


def test_rules_that_are_not_known_here_are_not_guessed() -> None:
    view = replace(VIEW, run=replace(RUN, flag_source="launchdarkly"), flags={})
    assert cohort_now(view, PUNCH) is None
    assert "the source's own rules decide" in said(view)


def test_a_draft_says_who_would_join_and_that_it_is_not_set() -> None:
    half = cohort_now(VIEW, PUNCH) or ()
    more = said(VIEW, FlagDraft(100, "sandbox"))
    assert "⏎ sets it" in more
    assert f"at 100%  12 of 12; {12 - len(half)} join" in more
    assert "⏎" not in said(VIEW)
    assert f"; {len(half)} leave" in said(VIEW, FlagDraft(0, "sandbox"))


def test_who_set_a_flag_is_told_and_that_the_node_has_not_heard() -> None:
    view = replace(VIEW, flag_changes={PUNCH: FlagChange(3.0, "screen", effective=False)})
    assert text(flag_lines.set_by(view, PUNCH)) == "screen ‼"
    assert "set by the screen at 3.0 s, and the node does not receive it" in said(view)


def test_the_last_decision_is_told_with_its_version_and_reason() -> None:
    evaluation = {"value": False, "reason": "lease_expired", "version": 3, "source_state": "VALID"}
    pauses = (
        PauseView("web-0.p1", "web-0", 1.0, decision={PUNCH: {**evaluation, "version": 1}}),
        PauseView("web-3.p1", "web-3", 2.0, decision={PUNCH: evaluation}),
    )
    view = replace(VIEW, pauses=pauses)
    assert text(flag_lines.row(view, CATALOG[0], 79, cursor=True)).endswith("v3 lease expired")
    assert "last decided off for web-3 at 2.0 s: lease expired, source VALID" in said(view)


def test_a_flag_that_the_source_lacks_is_not_served_rather_than_an_error() -> None:
    assert flag_lines.reason_words({"reason": "ERROR:FLAG_NOT_FOUND"}) == "not served"
    assert flag_lines.reason_words({"reason": "ERROR:MALFORMED_FLAG"}) == "error: malformed flag"


@pytest.mark.parametrize("height", [3, 8, 11, 20])
@pytest.mark.parametrize("cursor", [0, 5, 10])
def test_the_row_of_the_cursor_is_always_seen(cursor: int, height: int) -> None:
    lines = list(map(text, flag_lines.rows(VIEW, cursor, 80, height)))
    assert len(lines) == min(height, len(CATALOG))
    assert [line.split()[1] for line in lines if line.startswith("▶")] == [CATALOG[cursor].key]


def test_a_sound_lease_is_open_and_an_overdue_heartbeat_is_told() -> None:
    assert text(flag_lines.lease_words(VIEW)) == ""
    assert text(flag_lines.lease_words(leased(is_open=True, age=0.2))) == "lease 2 s ✓ open"
    assert text(flag_lines.lease_words(leased(is_open=True, age=1.5))) == "lease 2 s ◐ open, no heartbeat since 6.5 s"


def test_an_expired_lease_names_the_moment_of_its_last_heartbeat_which_stays_true_while_nothing_is_told() -> None:
    expired = leased(is_open=False, age=2.2)
    assert text(flag_lines.lease_words(expired)) == "lease 2 s ‼ expired: no heartbeat since 5.8 s"
    assert flag_lines.lease_words(replace(expired, t=60.0)) == flag_lines.lease_words(expired)
    assert text(flag_lines.lease_words(leased(is_open=False, age=None))).endswith("no heartbeat yet")


def test_an_outage_and_the_client_stand_beside_the_source() -> None:
    source = SourceView("VALID", None, 1.0, outage="freeze")
    line = text(flag_lines.source_lines(replace(VIEW, source=source), 100)[0])
    assert line == " source relay ‼ frozen   client VALID since 1.0 s"
    lost = SourceView("INTERRUPTED", "no route", 2.0)
    assert "relay ‼ INTERRUPTED" in text(flag_lines.source_lines(replace(VIEW, source=lost), 100)[0])


def test_a_long_error_of_the_client_takes_no_room_from_what_it_is_in() -> None:
    source = SourceView(
        "INTERRUPTED", "HTTPConnection " * 20, 11.1, "down", source_events.LeaseMeasured(True, 1.5, 2.0), 8.0
    )
    for cells in (110, 140, 160):
        line = text(flag_lines.source_lines(replace(VIEW, source=source), cells)[0])
        assert line.startswith(" source relay ‼ down   client INTERRUPTED since 11.1 s   lease 2 s ◐ open")
        assert len(line) <= cells
    assert line.endswith("…")


def test_one_joins_and_two_join() -> None:
    nobody = replace(VIEW, flags={PUNCH: False})
    cohorts = {percent: said(nobody, FlagDraft(percent, "sandbox")) for percent in range(1, 40)}
    assert any("; 1 joins: web-" in each for each in cohorts.values())
    assert any("; 2 join: web-" in each for each in cohorts.values())


def test_what_there_is_no_room_for_is_not_cut_off_in_silence() -> None:
    lines = flag_lines.detail(VIEW, PUNCH, flag_lines.draft_of(VIEW, PUNCH), 60, 2)
    assert text(lines[-1]).endswith(" …")
