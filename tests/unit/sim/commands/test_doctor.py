"""`snapdrill doctor`: what is missing is said with its cost and its cure, and only the indispensable fails it."""

from __future__ import annotations

import json

import pytest

from sim import cli
from sim.record.verdict import ExitCode
from sim.run import host as probe
from sim.run.host import Available, Capability


def finding(name: str, available: Available, *, required: bool = False) -> Capability:
    return Capability(name, available, required, f"{name} detail", f"{name} cost", f"{name} cure")


def ends(monkeypatch: pytest.MonkeyPatch, *found: Capability, option: str = "") -> int:
    monkeypatch.setattr(probe, "capabilities", lambda: list(found))
    return cli.main(["doctor", *filter(None, [option])])


def test_a_missing_extra_is_told_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = finding("pidfd", Available.YES, required=True), finding("hugetlb", Available.NO)
    assert ends(monkeypatch, *found) == ExitCode.HELD
    assert capsys.readouterr().out.splitlines() == [
        "yes  pidfd    pidfd detail",
        "no   hugetlb  hugetlb detail",
        "              costs: hugetlb cost",
        "              needs: hugetlb cure",
        "",
        "this host can run snapdrill",
    ]


def test_a_missing_necessity_ends_with_4_and_is_named_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(monkeypatch, finding("pidfd", Available.NO, required=True)) == ExitCode.UNSUPPORTED
    assert capsys.readouterr().out.splitlines()[-1] == "this host cannot run snapdrill without: pidfd"


def test_a_limited_necessity_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(monkeypatch, finding("pidfd", Available.LIMITED, required=True)) == ExitCode.HELD


def test_the_document_says_the_same_and_ends_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(monkeypatch, finding("pidfd", Available.NO, required=True), option="--json") == ExitCode.UNSUPPORTED
    assert json.loads(capsys.readouterr().out) == {
        "version": 1,
        "probes": [
            {
                "name": "pidfd",
                "available": "no",
                "required": True,
                "detail": "pidfd detail",
                "costs": "pidfd cost",
                "needs": "pidfd cure",
            }
        ],
    }


def test_this_host_is_examined_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == ExitCode.HELD
    assert "this host can run snapdrill" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False)]
)
def test_colours_follow_the_terminal_unless_the_environment_says_otherwise(
    setting: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == ExitCode.HELD
    assert ("\x1b[" in capsys.readouterr().out) is coloured
