"""Flag files as people have them, each the example of a kind: what lint, the follower and explain say of it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flags.catalog import FLAGS
from flags.context import ALL, SandboxAttributes
from flags.decision import Evaluation
from flags.decode import look
from flags.explain import explain
from flags.file import FileFlags, taken_from
from flags.inline import Rollout, flag_from
from flags.lint import check
from flags.unsafe import repeats_nest
from sim.cli import main
from sim.record.verdict import ExitCode

PUNCH = "memfd-punch-on-snapshot"
USE_MEMFD = "use-memfd"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
NEVER = 3600.0
ON = flag_from(PUNCH, True)
SAFE = {**ON, "fallthrough": {"variation": 0}}


def clause(attribute: str = "key", op: str = "in", *values: Any, kind: str = "sandbox") -> dict[str, Any]:
    return {"contextKind": kind, "attribute": attribute, "op": op, "values": list(values)}


def rollout(*weights: tuple[int, int], **more: Any) -> dict[str, Any]:
    entries = [{"variation": variation, "weight": weight} for variation, weight in weights]
    return {"rollout": {"contextKind": "sandbox", "variations": entries, **more}}


def file_of(flag: dict[str, Any], **more: Any) -> str:
    return json.dumps({"flags": {PUNCH: flag}, **more}, indent=1)


def denying(*clauses: dict[str, Any]) -> dict[str, Any]:
    return {**ON, "rules": [{"id": "deny-old-kernels", "variation": 0, "clauses": list(clauses)}]}


class Case(NamedTuple):
    """A file; lint's exit and the beginning of its first finding; what a following node serves; words of explain."""

    text: str
    lint: ExitCode
    finding: str
    served: tuple[bool, str]
    words: str


HELD, VIOLATED = ExitCode.HELD, ExitCode.VIOLATED
TEAM = clause("key", "in", "acme", kind="team")
TWICE = [{"id": "r1", "variation": 0, "clauses": [clause("key", "in", "bank")]},
         {"id": "r1", **rollout((0, 0), (1, 100_000)), "clauses": [clause("key", "in", "web-0")]}]  # fmt: skip
KEPT = {"key": "canary", "version": 1, "salt": "c", "rules": [{"clauses": [], "weight": 0}]}
IN_CANARY = {"variation": 1, "clauses": [{"attribute": "", "op": "segmentMatch", "values": ["canary"]}]}
ASKS_FOR_A_LIST = {**ON, "prerequisites": [{"key": USE_MEMFD, "variation": [0]}]}
CASES = {
    "bucketBy the kind": Case(
        file_of({**ON, "salt": "s", "fallthrough": rollout((0, 1_000), (1, 99_000), bucketBy="kind")}),
        VIOLATED,
        'unknown bucketBy "kind"',
        (True, "FALLTHROUGH"),
        "every context is served false for 1 %, true for 99 %, by sandbox kind",
    ),
    "two rules of one id": Case(
        file_of({**SAFE, "rules": TWICE}),
        HELD,
        "",
        (True, "RULE_MATCH"),
        'rule 2 matches: sandbox key is "web-0"',
    ),
    "the short form": Case(
        json.dumps({"flagValues": {PUNCH: True, "my-number": 3}}),
        HELD,
        f'"{PUNCH}" has no "offVariation"',
        (True, "FALLTHROUGH"),
        "every context is served true",
    ),
    "a REST export": Case(
        json.dumps({"key": PUNCH, "environments": {}}),
        VIOLATED,
        '"flags" is missing',
        (False, "ERROR:FLAG_NOT_FOUND"),
        "it is not in the file",
    ),
    "an integer of 5,000 digits": Case(
        '{"flags": {}, "n": ' + "1" * 5_000 + "}",
        VIOLATED,
        'unknown key "n"',
        (False, "ERROR:FLAG_NOT_FOUND"),
        "it is not in the file",
    ),
    "half a surrogate pair": Case(
        json.dumps({"flags": {"memfd-\ud800": {**ON, "key": "memfd-\ud800"}}}),
        HELD,
        "unknown flag",
        (False, "ERROR:FLAG_NOT_FOUND"),
        "it is not in the file",
    ),
    "no version at all": Case(
        file_of(denying(clause("kernel-version", "semVerLessThan", "6.2.x"))),
        VIOLATED,
        '"6.2.x" is no version',
        (True, "FALLTHROUGH"),
        "no match: rule 1 (sandbox kernel-version is older than version",
    ),
    "no values": Case(
        file_of(denying(clause("kernel-version", "in"))),
        VIOLATED,
        "the clause has no values",
        (True, "FALLTHROUGH"),
        "no match: rule 1 (sandbox kernel-version is nothing)",
    ),
    "no clauses": Case(
        file_of({**SAFE, "rules": [{"id": "x", "variation": 1, "clauses": []}]}),
        VIOLATED,
        "every sandbox is punched by rule 1: it has no clauses",
        (True, "RULE_MATCH"),
        "rule 1 matches: every context; it serves true",
    ),
    "a version compared as a number": Case(
        file_of(denying(clause("kernel-version", "lessThan", "6.2"))),
        VIOLATED,
        "lessThan compares numbers, and sandbox kernel-version is text",
        (True, "FALLTHROUGH"),
        "no match: rule 1 (sandbox kernel-version is less than",
    ),
    "a misspelt operator": Case(
        file_of(denying(clause("kernel-version", "semVerLessThen", "6.2.0"))),
        VIOLATED,
        'unknown operator "semVerLessThen"',
        (True, "FALLTHROUGH"),
        "no match: rule 1 (sandbox kernel-version semVerLessThen",
    ),
    "a prerequisite that asks for a list": Case(
        file_of(ASKS_FOR_A_LIST),
        VIOLATED,
        f'LaunchDarkly refuses "{PUNCH}": "variation": it must be a whole number, and it is a list',
        (False, "ERROR:FLAG_NOT_FOUND"),
        "it is not in the file",
    ),
    "a share of a variation that it has not": Case(
        file_of({**ON, "fallthrough": rollout((0, 99_000), (2, 1_000))}),
        VIOLATED,
        "variation 2 is out of range",
        (False, "FALLTHROUGH"),
        "variation 2, which it has not for 1 %",
    ),
    "rollout null": Case(
        file_of({**ON, "fallthrough": {"variation": 0, "rollout": None}}),
        HELD,
        "",
        (False, "FALLTHROUGH"),
        "every context is served false",
    ),
    "a segment share without its kind": Case(
        file_of({**SAFE, "rules": [IN_CANARY]}, segments={"canary": KEPT}),
        VIOLATED,
        '"rolloutContextKind" is missing',
        (False, "FALLTHROUGH"),
        "Python's SDK serves true instead",
    ),
    "a deleted flag": Case(
        file_of({"key": PUNCH, "version": 4, "deleted": True}),
        HELD,
        "",
        (False, "ERROR:FLAG_NOT_FOUND"),
        "it is not in the file",
    ),
    "weights that are all 0": Case(
        file_of({**ON, "fallthrough": rollout((0, 0), (1, 0))}),
        VIOLATED,
        "the weights sum to 0",
        (False, "UNSAFE_FLAG"),
        "a following node serves the safe value (UNSAFE_FLAG)",
    ),
    "a rule by team": Case(
        file_of(denying(TEAM)),
        VIOLATED,
        'no context has the kind "team" when the flag is read',
        (True, "FALLTHROUGH"),
        'no match: rule 1 (team key is "acme")',
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flags.json"


@pytest.fixture
def following(path: Path) -> Iterator[FileFlags]:
    """It punches; it looks at the file only when told to."""
    path.write_text(file_of(ON))
    with contextlib.closing(FileFlags(path, poll=NEVER)) as followed:
        assert followed.decide(WEB).is_on(PUNCH)
        yield followed


@pytest.mark.parametrize("name", CASES)
def test_what_lint_says(name: str, path: Path) -> None:
    case = CASES[name]
    path.write_text(case.text)
    findings = check(CASES[name].text)
    wrong = [each.text for each in findings if each.severity == "error"] or [each.text for each in findings]
    assert main(["flags", "lint", str(path)]) == case.lint
    assert (wrong[0] if wrong else "").startswith(case.finding)
    assert bool(case.finding) == bool(wrong)


@pytest.mark.parametrize("name", CASES)
def test_what_a_following_node_serves_and_off_after_it(name: str, path: Path, following: FileFlags) -> None:
    path.write_text(CASES[name].text)
    assert following.refresh().state == "VALID"
    found = following.decide(WEB).evaluation(PUNCH)
    assert (found.value, found.reason) == CASES[name].served
    path.write_text(CASES[name].text.replace('"on": true', '"on": false'))
    following.refresh()
    if '"on": true' in CASES[name].text:
        assert following.decide(WEB).is_on(PUNCH) is False


@pytest.mark.parametrize("name", CASES)
def test_what_explain_says(name: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(CASES[name].text)
    assert main(["flags", "explain", str(path), "--sandbox", "web-0", "--flag", PUNCH]) == HELD
    assert CASES[name].words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, '{"flags": 1e999', '{"flags": {"a": NaN}}', "\ufeff{", '"\\'])
def test_no_text_ends_in_a_traceback(text: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(text, encoding="utf-8")
    assert main(["flags", "lint", str(path)]) == VIOLATED
    assert main(["flags", "explain", str(path), "--sandbox", "web-0"]) == ExitCode.USAGE
    assert main(["flags", "cohort", str(path), str(path), "--contexts", "2"]) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place"), [('{\n "flags": {,}}', (2, 12)), (file_of({**ON, "salt": 3}), (3, 3)), ("\ufeff", (1, 1))]
)
@pytest.mark.parametrize("command", ["cohort", "explain", "diff"])
def test_what_cannot_be_read_is_a_mistake_with_its_place_in_every_form(
    command: str,
    text: str,
    place: tuple[int, int],
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    path.write_text(text)
    more = {"cohort": [str(path), "--json"], "explain": ["--sandbox", "web-0", "--json"], "diff": ["--live", "--json"]}
    code = main(["flags", command, str(path), *more[command]])
    said = capsys.readouterr()
    assert f"{path}:{place[0]}:{place[1]}: error: " in said.err
    if command == "explain" and "salt" in text:  # the rest of the file is explained
        assert code == HELD
        return
    assert code == ExitCode.USAGE
    assert f",line={place[0]},col={place[1]},title=invalid file::" in said.err
    (mistake,) = json.loads(said.out)["mistakes"]
    assert (mistake["file"], mistake["line"], mistake["column"]) == (str(path), *place)


@pytest.mark.parametrize(
    ("pattern", "nests"),
    [
        ("(a+)+$", True), ("(?:a*)*", True), ("((a+)b?)+", True), ("(a{2,})*", True), ("(a+|b)*", True),
        ("a+b+", False), ("(a+)", False), ("(ab)+", False), ("(a{2,3})+", False), (r"(\+)+", False), ("([+*])+", False),
        ("(a+)?", False), ("", False), (")", False), ("(", False), ("[", False), ("\\", False),
    ],
)  # fmt: skip
def test_a_repeat_in_a_repeat_is_seen(pattern: str, nests: bool) -> None:
    assert repeats_nest(pattern) is nests


EDITS = 1_000


def edited(draw: random.Random, document: Any) -> str:
    """One edit as people and tools make them: of a value, of the shape, or of the text itself."""
    text = json.dumps(document)
    kind = draw.randrange(5)
    if kind == 0:
        return text[: draw.randrange(len(text))]
    if kind == 1:
        at = draw.randrange(len(text))
        return text[:at] + draw.choice(['"', "{", "}", "0", "\\", "\ud7ff", " "]) + text[at + 1 :]
    if kind == 2:
        return draw.choice(["", "{}", "null", "[]", '{"flags": null}', '{"flags": {}}', '{"flags": []}'])
    document = json.loads(text)
    part, name = draw.choice(list(_places(document)))
    part[name] = draw.choice([None, 0, 1, -1, True, "x", [], {}, [0], 2.5, 10**400, {"variation": 1}, "(a+)+$"])
    if kind == 3 and isinstance(part, dict):
        del part[name]
    return json.dumps(document)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    members = list(value.items() if isinstance(value, dict) else enumerate(value)) if value else []
    for name, each in members:
        yield value, name
        if isinstance(each, dict | list):
            yield from _places(each)


RICH = {
    "flags": {
        PUNCH: {
            **ON,
            "prerequisites": [{"key": USE_MEMFD, "variation": 0}],
            "contextTargets": [{"contextKind": "sandbox", "variation": 1, "values": ["web-0"]}],
            "rules": [{"id": "r", **rollout((0, 50_000), (1, 50_000)), "clauses": [clause("key", "startsWith", "w")]}],
            "fallthrough": rollout((0, 10_000), (1, 90_000)),
        },
        USE_MEMFD: flag_from(USE_MEMFD, Rollout(100, "sandbox")),
    },
    "segments": {"canary": KEPT},
}


def test_off_arrives_between_a_thousand_random_edits(path: Path, following: FileFlags) -> None:
    """After any edit the kill switch is obeyed, and what punches then is what the newest whole file says."""
    draw = random.Random(20)
    off = json.dumps({"flags": {PUNCH: {**RICH["flags"][PUNCH], "on": False}}})
    for number in range(EDITS):
        path.write_text(edited(draw, RICH), encoding="utf-8")
        state = following.refresh().state
        following.decide(WEB)
        if number % 3 == 0:
            path.write_text(off)
            assert following.refresh().state == "VALID"
            assert following.decide(WEB).evaluation(PUNCH).reason == "OFF", number
        elif state == "INTERRUPTED":
            with pytest.raises(json.JSONDecodeError):
                json.loads(path.read_text(encoding="utf-8"))
    assert following._poller.is_alive()


def test_explain_agrees_with_the_decision_after_random_edits(path: Path) -> None:
    draw, agreed = random.Random(21), 0
    for _ in range(300):
        path.write_text(edited(draw, RICH), encoding="utf-8")
        with contextlib.closing(FileFlags(path, poll=NEVER, contexts=ALL, obey_unsafe=True)) as followed:
            if followed.status().state != "VALID":
                continue
            taken = taken_from(path, look(path))
            (told,) = explain((taken.flags, taken.segments), ALL.context(WEB, "pause"), [PUNCH])
            made: Evaluation = followed.decide(WEB).evaluation(PUNCH)
            assert (told.evaluation.value, told.evaluation.reason) == (made.value, made.reason)
            if told.landing is not None and told.landing.bucket is not None:
                assert told.landing.low <= told.landing.bucket <= told.landing.high
            check(path.read_text(encoding="utf-8"), ALL)
            agreed += 1
    assert agreed > 100
    assert PUNCH in FLAGS
