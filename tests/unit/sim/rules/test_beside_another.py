"""What a sandbox does is judged beside another one as it is alone: nothing is counted once for both, or for one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable

import pytest

from engine import events as copying
from flags.catalog import PUNCH
from sim.record import events, source_events
from sim.rules import RULES
from tests.story import CODES, MEMORY, Story, decided, planned, whole


def sound(story: Story, name: str) -> None:
    story.pause(f"{name}.p1", f"{name}.1").resume(f"{name}.2", f"{name}.p1")
    story.begin_pause(f"{name}.p2", f"{name}.2").roll_back(f"{name}.p2", f"{name}.2")
    story.pause(f"{name}.p3", f"{name}.2")


def discarded(story: Story, name: str) -> None:
    story.begin_pause(f"{name}.p1", f"{name}.1").copy(f"{name}.p1").discard(f"{name}.p1", f"{name}.1")


def not_discarded(story: Story, name: str) -> None:
    story.begin_pause(f"{name}.p1", f"{name}.1").copy(f"{name}.p1")
    story.tell(copying.CopyFailed(1, "copy.write", "ENOSPC", condemned=True), pause=f"{name}.p1")
    story.settle(f"{name}.p1", outcome="rolled-back", error="ENOSPC").go("pausing", "running", sandbox=name)


def undecided(story: Story, name: str) -> None:
    story.go("running", "pausing", sandbox=name).freeze(f"{name}.p1", f"{name}.1").scan(f"{name}.p1")
    story.tell(planned(), pause=f"{name}.p1").copy(f"{name}.p1").finish(f"{name}.p1", f"{name}.1")


def another_path(story: Story, name: str) -> None:
    pause = f"{name}.p1"
    story.go("running", "pausing", sandbox=name).tell(decided(), pause=pause).freeze(pause, f"{name}.1").scan(pause)
    story.tell(planned(path="dedup"), pause=pause).copy(pause).finish(pause, f"{name}.1", path="dedup")


def without_a_code(story: Story, name: str) -> None:
    pause = f"{name}.p1"
    story.go("running", "pausing", sandbox=name).tell(decided(), pause=pause).freeze(pause, f"{name}.1").scan(pause)
    story.tell(planned(punch=False, punch_code=None), pause=pause).copy(pause, punch=False)
    story.finish(pause, f"{name}.1", punch=False, punch_code=None)


def flipped(story: Story, name: str) -> None:
    story.begin_pause(f"{name}.p1", f"{name}.1")
    for value in (False, True):
        story.tell(events.FlagSet(PUNCH, value, effective=True), None)
    story.copy(f"{name}.p1").finish(f"{name}.p1", f"{name}.1")


def off(story: Story, name: str) -> None:
    story.tell(events.FlagSet(PUNCH, value=False, effective=True), None)
    sound(story, name)
    story.tell(events.FlagSet(PUNCH, value=True, effective=True), None)


def punched_first(story: Story, name: str) -> None:
    pause = f"{name}.p1"
    story.begin_pause(pause, f"{name}.1").tell(copying.ChunkPunched(0, MEMORY // 2), pause=pause)
    story.copy(pause).tell(copying.GuestDied(0.1), pause=pause).finish(pause, f"{name}.1", peak_over=1 << 40)


def freed_first(story: Story, name: str) -> None:
    pause = f"{name}.p1"
    story.begin_pause(pause, f"{name}.1").publish(0, pause, resident=0).finish(pause, f"{name}.1", peak_over=None)


def runs_again(story: Story, name: str) -> None:
    story.pause(f"{name}.p1", f"{name}.1").tell(events.GuestThawed(f"{name}.1"), name)
    story.go("paused", "running", sandbox=name)


def of_unknown_origin(story: Story, name: str) -> None:
    story.go("running", "paused", sandbox=name).resume(f"{name}.2", f"{name}.p9")


def of_a_failed_build(story: Story, name: str) -> None:
    story.begin_pause(f"{name}.p1", f"{name}.1").roll_back(f"{name}.p1", f"{name}.1")
    story.resume(f"{name}.2", f"{name}.p1")


def dead(story: Story, name: str) -> None:
    story.tell(events.ProcessDied("guest", 20, f"{name}.1", "running"), name)


def forgotten(story: Story, name: str) -> None:
    story.begin_pause(f"{name}.p1", f"{name}.1").roll_back(f"{name}.p1", f"{name}.1")
    story.begin_pause(f"{name}.p2", f"{name}.1").finish(f"{name}.p2", f"{name}.1", content_hash="bb")
    last = max(at for at, each in enumerate(story.entries) if isinstance(each.event, copying.Scanned))
    entry = story.entries[last]
    assert isinstance(entry.event, copying.Scanned)
    story.entries[last] = dataclasses.replace(entry, event=dataclasses.replace(entry.event, dirty_bytes=4096))


def compared(story: Story, name: str) -> None:
    story.spawn(f"{name}.2", guest="vm").begin_pause(f"{name}.p1", f"{name}.2")
    for missed, unlogged in ((0, 0), (1, 0), (0, 1)):
        story.tell(copying.DirtyCompared("write-protect-scan", 9, 9, missed, unlogged, 3, 3), pause=f"{name}.p1")


def not_compared(story: Story, name: str) -> None:
    story.spawn(f"{name}.2", guest="vm").go("running", "pausing", sandbox=name).freeze(f"{name}.p1", f"{name}.2")
    story.tell(copying.Scanned("write-protect-scan", 4096, 0, 8192, 0.1, None), pause=f"{name}.p1")


def file_edited(story: Story, name: str) -> None:
    story.tell(source_events.FlagFileEdited("not off", 0.0), None)
    sound(story, name)


SCRIPTS = (
    sound, discarded, not_discarded, undecided, another_path, without_a_code, flipped, off, punched_first, freed_first,
    runs_again, of_unknown_origin, of_a_failed_build, dead, forgotten, compared, not_compared, file_edited,
)  # fmt: skip


def judged(*scripts: tuple[Callable[[Story, str], None], str]) -> Counter[Hashable]:
    """How often each rule was exercised, and what it noted of one sandbox, in a ledger of two."""
    story = Story().begin("web-0", "web-1")
    for script, name in scripts:
        script(story, name)
    found = {rule: whole(rule, each) for rule, each in story.end().findings().items()}
    counted = Counter[Hashable](
        (rule, *(note.get(key) for key in ("code", "sandbox", "pause", "incarnation", "pid", "state")))
        for rule, each in found.items()
        for note in (*each.violations, *each.missing)
        if note["sandbox"] != "*"
    )
    counted.update({rule: each.checked for rule, each in found.items()})
    return counted


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_sandboxes_that_do_the_same_are_found_to_do_twice_as_much(script: Callable[[Story, str], None]) -> None:
    nothing, one, other = judged(), judged((script, "web-0")), judged((script, "web-1"))
    both = judged((script, "web-0"), (script, "web-1"))
    for each in one.keys() | other.keys() | both.keys() | nothing.keys():
        assert both[each] - nothing[each] == one[each] + other[each] - 2 * nothing[each], each


def test_together_they_exercise_every_rule_and_show_most_of_what_a_ledger_can() -> None:
    counted = sum((judged((script, "web-0")) for script in SCRIPTS), Counter())
    assert set(RULES) == set(CODES) == {each for each in counted if isinstance(each, str)}
    assert len({each[:2] for each in counted if isinstance(each, tuple) and each[1]}) >= 20
