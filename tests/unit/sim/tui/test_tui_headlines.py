from __future__ import annotations

from dataclasses import replace

import pytest

from flags.catalog import PUNCH
from sim.record import events, source_events
from sim.record.stages import Pace
from sim.record.view import FaultView, FlagChange, MemoryView, PauseView, SandboxView, SourceView, View
from sim.tui import headlines, keys
from sim.tui.spans import Span, text, width
from tests.story import at_its_end

MIB = 1 << 20
RUN = events.RunStarted(1, "0", "run", "demo", 42, [], "", 1024 * MIB, "disk", None)
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running")
SANDBOXES = {f"web-{number}": replace(WEB, name=f"web-{number}") for number in range(6)}
VIEW = View(
    t=2.25,
    run=RUN,
    tick=5,
    node="up",
    sandboxes=SANDBOXES,
    memory=MemoryView(guests=160 * MIB, caches=20 * MIB, peak=384 * MIB, budget=1024 * MIB),
)


@pytest.mark.parametrize("cells", range(40, 160, 7))
def test_no_word_of_the_title_is_cut_at_any_width(cells: int) -> None:
    whole = set(text(headlines.title(VIEW, 0, 300)).split())
    line = text(headlines.title(VIEW, 0, cells))
    assert len(line) <= cells
    assert set(line.split()) <= whole
    assert "demo" in line


def test_nothing_is_claimed_to_hold_before_a_pause_has_ended() -> None:
    assert text(headlines.verdict_so_far(VIEW, 0)) == "nothing judged yet"
    paused = replace(VIEW, pauses=(PauseView("p", "web-0", 1.0, settled_at=2.0),))
    assert text(headlines.verdict_so_far(paused, 0)) == "HELD so far"


def test_a_violation_shows_at_once() -> None:
    paused = replace(VIEW, pauses=(PauseView("p", "web-0", 1.0, settled_at=2.0),))
    assert headlines.verdict_so_far(paused, 2) == (Span("‼ VIOLATED (2)", "bad"),)


def test_the_final_verdict_is_the_runs_own() -> None:
    ended = replace(VIEW, ended=events.RunEnded("inconclusive", 3, {}, "", 0))
    assert headlines.verdict_so_far(ended, 0) == (Span("INCONCLUSIVE", "warn"),)


def test_node_memory_is_a_bar_of_the_budget_with_its_numbers() -> None:
    bar, marks = headlines.node_memory(VIEW, 80)
    assert width(bar) <= 80
    assert text(bar) == " memory ██████▓········┃·······················  now 180  peak 384  of 1024 MiB"
    assert text(marks) == "               ╵1x     ╵2x "


def test_a_mark_past_the_end_of_the_bar_is_not_drawn() -> None:
    tight = replace(VIEW, memory=replace(VIEW.memory, budget=384 * MIB))
    assert "2x" not in text(headlines.node_memory(tight, 80)[1])


def test_a_peak_over_the_budget_is_a_warning_and_still_fits() -> None:
    over = replace(VIEW, memory=MemoryView(guests=900 * MIB, caches=300 * MIB, peak=1200 * MIB, budget=1024 * MIB))
    bar, _ = headlines.node_memory(over, 80)
    assert width(bar) <= 80
    assert Span("1200", "warn") in bar


def test_what_finished_builds_have_in_memory_is_told_beside_the_budget_where_there_is_room() -> None:
    paused = replace(VIEW, memory=MemoryView(peak=384 * MIB, budget=1024 * MIB, page_cache=192 * MIB))
    assert text(headlines.node_memory(paused, 140)[0]).endswith("of 1024 MiB  + page cache 192")
    assert text(headlines.node_memory(paused, 80)[0]).endswith("of 1024 MiB")


def test_node_memory_without_a_run_is_an_empty_bar() -> None:
    bar, marks = headlines.node_memory(View(), 80)
    assert "█" not in text(bar)
    assert text(marks).strip() == ""


def test_flags_show_their_value_and_the_safe_one_where_nothing_was_set() -> None:
    line = text(headlines.flags_line(replace(VIEW, flags={PUNCH: {"rollout": "50%", "by": "sandbox"}}), 120))
    assert line.startswith(" flags  memfd-punch-on-snapshot ◐ on for 50% by sandbox   memfd-background-copy ● on")


def test_a_sound_source_is_left_out_where_flags_need_the_room_and_a_broken_one_is_not() -> None:
    flags = {PUNCH: {"rollout": "12.5%", "by": "template"}}
    relay = replace(VIEW, flags=flags, run=replace(RUN, flag_source="relay"), source=SourceView("VALID"))
    assert text(headlines.flags_line(relay, 120)).endswith("source relay ✓ VALID")
    assert text(headlines.flags_line(relay, 87)).endswith("memfd-background-copy ● on")
    broken = replace(relay, source=SourceView("VALID", outage="freeze"))
    assert text(headlines.flags_line(broken, 90)) == (
        " flags  punch ◐ on for 12.5% by template   background ● on   source relay ‼ frozen"
    )
    assert text(headlines.flags_line(broken, 80)) == " flags  punch ◐ on for 12.5% by template   source relay ‼ frozen"


def test_a_flag_that_the_node_has_not_heard_of_is_not_shown_as_in_force() -> None:
    change = {PUNCH: FlagChange(1.0, "screen", effective=False)}
    line = text(headlines.flags_line(replace(VIEW, flags={PUNCH: False}, flag_changes=change), 120))
    assert line.startswith(" flags  memfd-punch-on-snapshot ○ off ‼ unheard   memfd-background-copy ● on")


def test_a_source_that_dropped_its_streams_is_no_longer_broken_once_the_client_is_back() -> None:
    dropped = SourceView("INTERRUPTED", outage="drop")
    assert headlines.source_words(replace(VIEW, source=dropped))[-1] == Span("inline ‼ dropped", "bad")
    back = replace(dropped, state="VALID")
    assert headlines.source_words(replace(VIEW, source=back))[-1] == Span("inline ◐ dropped once, VALID", "warn")


def test_a_lease_that_has_expired_is_a_broken_source() -> None:
    expired = SourceView("VALID", lease=source_events.LeaseMeasured(False, 2.0, 1.0))
    assert headlines.source_words(replace(VIEW, source=expired))[-1] == Span("inline ‼ lease expired", "bad")


def test_armed_faults_are_listed_as_far_as_there_is_room() -> None:
    faults = tuple(FaultView(number, "copy.write", "ENOSPC", "chunk 3", f"web-{number}", number) for number in range(3))
    view = replace(VIEW, faults=faults)
    assert text(headlines.faults_line(VIEW, 80)) == " faults none armed"
    assert text(headlines.faults_line(view, 80)) == (
        " faults 3 armed: copy.write ENOSPC at chunk 3 on web-0; and 2 more"
    )
    assert "fired once" in text(headlines.faults_line(view, 200))
    assert text(headlines.faults_line(view, 30)) == " faults 3 armed"


def test_a_refused_resume_is_explained_in_full_under_the_fleet() -> None:
    why = "it was discarded and can never run again: copy.write of chunk 3 failed: No space left on device"
    sandbox = replace(WEB, state="discarded", refused=events.RequestRefused("resume", why))
    lines = [text(line) for line in headlines.detail(sandbox, 80, 3)]
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines).split()).startswith(f"web-0 ✗ discarded; refused: {why}")


def test_a_sentence_that_there_is_no_room_for_ends_in_an_ellipsis() -> None:
    lines = [text(line) for line in headlines.detail(replace(WEB, reason="the memfd is consumed " * 20), 80, 3)]
    assert lines[-1].endswith("…")
    assert all(len(line) <= 80 for line in lines)
    assert headlines.detail(WEB, 80, 0) == []


def test_a_paused_sandbox_names_its_build_once_its_copy_has_ended() -> None:
    copying = PauseView("web-0.p1", "web-0", 1.0, chunks=4)
    sandbox = replace(WEB, state="paused", reason="the copy goes on in the background", pause=copying)
    assert "the copy goes on" in text(headlines.detail(sandbox, 120, 5)[0])
    settled = replace(sandbox, build="web-0.p1", pause=at_its_end(replace(copying, settled_at=2.0)))
    assert text(headlines.detail(settled, 120, 5)[0]) == " web-0 ■ paused: its memory is in build web-0.p1"


def test_a_machine_that_ended_is_told_in_two_lines_with_its_bytes() -> None:
    had, found = "e9 66 ff ff ff 00 00 00", "00 00 00 00 00 00 00 00"
    end = events.VmEnded("web-0.1", "INTERNAL_ERROR", 0x1FFFFFF, past_memory=True, began=0x95, had=had, found=found)
    dead = replace(WEB, state="killed", reason="web-0.1: KVM_EXIT_...", guest="vm", vm_end=end)
    assert [text(line) for line in headlines.who(dead, 80, 2)] == [
        " web-0 † killed: KVM_EXIT_INTERNAL_ERROR, rip 0x1ffffff: the end of its memory",
        f" at 0x95 it had {had}, and found {found}",
    ]
    alive = replace(WEB, guest="vm", incarnation="web-0.1", pid=200)
    assert text(headlines.who(alive, 80, 2)[1]).startswith(" virtual machine web-0.1, pid 200 ")


def test_an_empty_fleet_has_no_detail() -> None:
    assert headlines.detail(None, 80, 3) == []


@pytest.mark.parametrize("cells", [40, 80, 140])
@pytest.mark.parametrize("note", [None, Span("pausing web-0 …", "busy"), Span("x" * 300, "bad")])
def test_the_line_over_the_events_is_as_wide_as_the_screen(cells: int, note: Span | None) -> None:
    lines = headlines.rule(note, cells)
    assert width(lines[-1]) == cells
    assert all(width(line) <= cells for line in lines)
    assert (
        note is None
        or note.text.replace(" ", "") in "".join(map(text, lines)).replace(" ", "")
        or len(note.text) > cells
    )


def test_the_foot_names_the_keys_that_matter_even_at_80_cells() -> None:
    line = text(keys.key_line(keys.FLEET, 80))
    assert len(line) <= 80
    for shown in ("p pause", "r resume", "f punch", "e break", "t tick", "space play", "? help", "q quit"):
        assert shown in line


def test_the_foot_of_a_run_that_is_only_watched_names_no_key_that_asks() -> None:
    line = text(keys.key_line(keys.FLEET, 200, watched=True))
    assert "/ filter" in line
    assert "4 memory" in line
    for shown in ("pause", "resume", "punch", "break", "restart"):
        assert shown not in line


def test_a_condemned_guest_can_never_run_again_and_the_copy_that_a_resume_takes_is_named() -> None:
    pause = PauseView("web-0.p2", "web-0", 1.0, incarnation="web-0.2", condemned_at=1.5)
    sandbox = replace(WEB, state="paused", build="web-0.p1", pause=pause)
    said = text(headlines.who(sandbox, 140, 3)[1])
    assert "guest web-0.2 can never run again; r makes a new one of build web-0.p2" in said
    over = replace(sandbox, pause=replace(pause, settled_at=2.0), build="web-0.p2", pace=Pace(200.0, held=True))
    said = text(headlines.who(over, 140, 3)[1])
    assert "of build web-0.p2" in said
    assert "SLOWED x200  STOPPED" in said
