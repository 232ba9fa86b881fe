"""An error of this host while a rule looks is neither a violation nor a death of the guest: evidence is missing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from engine import events as copying
from engine.errors import CorruptBuildError
from sim.record import events
from sim.record.verdict import Verdict
from sim.rules import RULES, no_leaks
from sim.rules.reality import Reality, SpawnedGuest
from tests.story import Story

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

PAUSE = "web-0.p1"
HOSTS = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES]
REASON = "missing evidence: this host did not let it be looked at: "


def failing(number: int) -> Any:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def refused(scene: Scene, rule: str) -> list[dict[str, Any]]:
    """What the host refused: after two looks while the run goes on, when nothing is missing yet, and its end."""
    for _ in range(2):
        assert scene.found(rule).verdict is Verdict.HELD
    scene.end()
    found = scene.found(rule)
    assert found.violations == []
    assert not found.missing or found.verdict is Verdict.INCONCLUSIVE
    return [each for each in found.missing if each["reason"].startswith(REASON)]


def frozen_page_of(scene: Scene) -> str:
    """A guest whose memory was freed, were it seen."""
    scene.go("created", "running")
    return "never_resumed"


def resumed(scene: Scene) -> str:
    scene.tell(events.Resumed("web-0.1", PAUSE, 4096, 1.0))
    return "bytes_exact"


def rolled_back(scene: Scene) -> str:
    scene.go("created", "running", "pausing").freeze()
    scene.settle(outcome="rolled-back", condemned=False, punched_bytes=0, error="copy.write of chunk 0 failed")
    scene.tell(events.GuestThawed("web-0.1")).go("pausing", "running")
    return "rollback_intact"


@pytest.mark.parametrize("name", ["open_memory", "generations"])
@pytest.mark.parametrize("happened", [frozen_page_of, resumed, rolled_back])
def test_a_guest_that_this_host_does_not_let_be_looked_into_did_not_die(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch, happened: Any, name: str
) -> None:
    guests.start().punch(4)
    rule = happened(scene)
    monkeypatch.setattr(SpawnedGuest, name, failing(errno.EMFILE))
    (found,) = refused(scene, rule)
    assert found["incarnation"] == "web-0.1"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH])
def test_a_guest_that_died_meanwhile_lacks_nothing(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    guests.start().punch(4)
    monkeypatch.setattr(SpawnedGuest, "open_memory", failing(number))
    assert refused(scene, frozen_page_of(scene)) == []


@pytest.mark.parametrize("name", ["open_build", "filled"])
@pytest.mark.parametrize("number", HOSTS)
def test_a_build_that_this_host_does_not_let_be_read_is_not_unreadable(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    scene.build(PAUSE)
    scene.settle()
    monkeypatch.setattr(Reality, name, failing(number))
    assert [each["pause"] for each in refused(scene, "bytes_exact")] == [PAUSE]


def test_an_unreadable_build_is_named_by_the_error_behind_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*_: object) -> Any:
        try:
            failing(errno.EMFILE)()
        except OSError as error:
            raise CorruptBuildError(PAUSE, " cannot be read") from error

    scene.build(PAUSE)
    scene.settle()
    monkeypatch.setattr(Reality, "open_build", corrupt)
    assert [each["pause"] for each in refused(scene, "bytes_exact")] == [PAUSE]
    assert scene.found("no_unpublished").missing[0]["pause"] == PAUSE


def test_named_builds_that_this_host_does_not_let_be_opened_are_not_unfinished(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = [PAUSE, "web-0.p2"]
    for each in builds:
        (scene.reality.builds / each).mkdir()
    monkeypatch.setattr(Reality, "open_build", failing(errno.ENFILE))
    assert sorted(each["pause"] for each in refused(scene, "no_unpublished")) == builds


def test_what_holds_memory_is_not_passed_over_where_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_leaks._links(2**22 + 1) == set()
    monkeypatch.setattr(os, "listdir", failing(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        no_leaks._links(os.getpid())


def test_what_holds_memory_is_not_passed_over_where_no_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readlink", failing(errno.ENOMEM))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        no_leaks._links(os.getpid())


def test_a_process_that_may_not_be_looked_into_is_asked_for_one_of_its_fds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(path: str, **_: object) -> str:
        asked.append(path)
        raise PermissionError

    monkeypatch.setattr(os, "readlink", refuse)
    assert no_leaks._links(os.getpid()) == set()
    assert len(asked) == 1


def test_a_name_that_is_too_long_to_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = iter([failing(errno.ENAMETOOLONG), lambda: "socket:[1]"])

    def read(*_: object, **__: object) -> str:
        name: str = next(acts, str)()
        return name

    monkeypatch.setattr(os, "readlink", read)
    assert "socket:[1]" in no_leaks._links(os.getpid())


def test_a_guest_whose_state_this_host_does_not_let_be_read_is_not_taken_for_a_dying_one(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests.start()
    scene.freeze().tell(copying.Condemned(PAUSE), pause=PAUSE)
    monkeypatch.setattr("pathlib.Path.read_text", failing(errno.EMFILE))
    (found,) = refused(scene, "never_resumed")
    assert found["reason"] == REASON + "[Errno 24] Too many open files"


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "none left"), MemoryError("none left")])
def test_a_rule_whose_look_fails_by_this_host_lacks_evidence_and_the_others_are_judged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    rules = {name: rule._replace(observe=fail) if name == "no_leaks" else rule for name, rule in RULES.items()}
    monkeypatch.setattr("sim.rules.RULES", rules)
    (scene.reality.builds / PAUSE).mkdir()
    assert len(refused(scene, "no_leaks")) == 1
    assert len(scene.found("no_unpublished").violations) == 1


def test_a_defect_of_a_rule_is_no_error_of_this_host(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"no_leaks": RULES["no_leaks"]._replace(observe=lambda *_: failing(errno.EBADF)())}
    monkeypatch.setattr("sim.rules.RULES", rules)
    with pytest.raises(OSError, match="Bad file descriptor"):
        scene.found("no_leaks")


def test_a_ledger_alone_lacks_no_look(sound: Story) -> None:
    assert not any(each.startswith(REASON) for each in sound.missing("never_resumed"))
