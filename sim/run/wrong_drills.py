"""Wrong drills: rules that are half blind, and reports that lie. Each is switched on in one process, by the self-test.

`SNAPDRILL_WRONG_DRILL=NAME:PID` is obeyed by a command whose parent is the process PID, and refused otherwise: no
other run can be made by a wrong drill. A wrong drill names itself on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import click

from engine.errors import UserError
from sim import rules
from sim.files.wrong_engines import Wrong
from sim.record.verdict import ExitCode, Verdict
from sim.rules.evidence import Evidence, Rule
from sim.rules.finding import Finding

VARIABLE = "SNAPDRILL_WRONG_DRILL"
CANARY, FILES, RECORD, CHECK = "outside:canary", "outside:junit", "outside:ledger", "outside:check"
OTHER_HALF = "other-half"
CODE, DIGEST, STATES = "outside:exit-code", "outside:digest", "outside:states"


def switch_on(asked: str) -> None:
    """Make this process the wrong drill that its parent asks for; UserError if anything else asks."""
    name, _, parent = asked.partition(":")
    if name not in SWITCHES or parent != str(os.getppid()):
        raise UserError(f"{VARIABLE} is for the self-test alone; remove it from the environment")
    click.echo(f"WRONG DRILL: {name}. Nothing that this command says can be believed.", err=True)
    SWITCHES[name]()


# -- rules that see half


def _with_rules(wrong: Callable[[str, Rule], Rule]) -> Callable[[], None]:
    def act() -> None:
        blind = {name: wrong(name, rule) for name, rule in rules.RULES.items()}
        _replace(rules, "RULES", MappingProxyType(blind))

    return act


def _half_blind(first: int) -> Callable[[str, Rule], Rule]:
    def blinded(_name: str, rule: Rule) -> Rule:
        def judge(evidence: Evidence) -> Finding:
            finding = rule.judge(evidence)
            finding.violations[:] = finding.violations[first::2]
            finding.missing[:] = finding.missing[first::2]
            return finding

        return rule._replace(judge=judge)

    return blinded


def _eyes_shut(_name: str, rule: Rule) -> Rule:
    return rule._replace(observe=None)


def _ledger_unread(name: str, rule: Rule) -> Rule:
    def judge(evidence: Evidence) -> Finding:
        return Finding(rule.judge(evidence).checked, evidence.seen(name).violations)

    return rule._replace(judge=judge)


# -- reports that lie


def _exit_code_lies() -> None:
    from sim.run.batch import Batch

    true = Batch.run

    def run(batch: Batch, *arguments: Any) -> ExitCode:
        true(batch, *arguments)
        return ExitCode.HELD

    _replace(Batch, "run", run)


def _junit_lies() -> None:
    from sim.report import junit

    true = junit._case  # noqa: SLF001

    def case(*arguments: Any) -> Any:
        made = true(*arguments)
        made.result = []
        return made

    _replace(junit, "_case", case)


def _digest_claimed() -> None:
    from sim.files.scenario import Scenario

    _replace(Scenario, "claims_digest", property(lambda _scenario: True))


def _fold_drops() -> None:
    from sim.record.fold import Fold

    true = Fold.apply

    def apply(fold: Fold, entries: Any) -> int:
        return true(fold, [each for each in entries if getattr(each.event, "new", None) != "paused"])

    _replace(Fold, "apply", apply)


def _verdict_lies() -> None:
    true = Finding.judged

    def judged(finding: Finding, name: str) -> Any:
        return replace(true(finding, name), verdict=Verdict.HELD.value, violations=[])

    _replace(Finding, "judged", judged)


def _ledger_lies() -> None:
    from sim.run import judging

    true = judging.conclude

    def conclude(*arguments: Any, **named: Any) -> Any:
        _, canaries = true(*arguments, **named)
        return Verdict.HELD.value, canaries

    _replace(judging, "conclude", conclude)


def _check_lies() -> None:
    from sim.report import rejudged

    _replace(rejudged, "verdict_of", lambda *_, **__: Verdict.HELD)


def _replace(owner: object, name: str, value: Any) -> None:
    setattr(owner, name, value)


SWITCHES: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        "half-blind": _with_rules(_half_blind(1)),
        OTHER_HALF: _with_rules(_half_blind(0)),
        "eyes-shut": _with_rules(_eyes_shut),
        "ledger-unread": _with_rules(_ledger_unread),
        "exit-code-lies": _exit_code_lies,
        "junit-lies": _junit_lies,
        "verdict-lies": _verdict_lies,
        "ledger-lies": _ledger_lies,
        "check-lies": _check_lies,
        "digest-claimed": _digest_claimed,
        "fold-drops": _fold_drops,
    }
)

HALF_BLIND: Mapping[str, str] = MappingProxyType(
    {
        "never_resumed": "death-awaited-late.yaml",
        "failed_copy_discards": "background-failure-swallowed.yaml",
        "bytes_exact": "clean-page-lost.yaml",
        "rollback_intact": "clean-before-first-chunk.yaml",
        "peak_bounded": "meter-under-reports.yaml",
        "decision_pinned": "pr-2902-dedup-ignores-flag.yaml",
        "no_leaks": "memory-kept.yaml",
        "legal_transitions": "background-rolled-back.yaml",
        "no_unpublished": "punch-before-publish.yaml",
        "off_arrives": "off-ignored.yaml",
        "deaths_explained": "killed-untold.yaml",
        "dirty_agrees": "scan-misses.yaml",
    }
)
EYES_SHUT: Mapping[str, str] = MappingProxyType(
    {
        "never_resumed": "woken-in-mid-copy.yaml",
        "failed_copy_discards": "discard-skipped.yaml",
        "bytes_exact": "clean-page-lost.yaml",
        "rollback_intact": "clean-before-first-chunk.yaml",
        "no_leaks": "memory-kept.yaml",
        "no_unpublished": "unfinished-visible.yaml",
    }
)
LEDGER_UNREAD: Mapping[str, str] = MappingProxyType(
    {
        "never_resumed": "death-awaited-late.yaml",
        "failed_copy_discards": "background-failure-swallowed.yaml",
        "bytes_exact": "hash-untrue.yaml",
        "rollback_intact": "scan-rearms.yaml",
        "no_unpublished": "punch-before-publish.yaml",
    }
)
LEFT_BY: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **{rule: ("half-blind", file) for rule, file in HALF_BLIND.items()},
        **{rule: ("ledger-unread", LEDGER_UNREAD[rule]) for rule in ("bytes_exact", "rollback_intact")},
        "no_leaks": ("eyes-shut", EYES_SHUT["failed_copy_discards"]),
    }
)
"""Of each rule: the drill that runs a scenario whose ledger alone shows it broken, and that scenario."""
_BLIND = {
    "half-blind": ("{} sees every second violation only", HALF_BLIND),
    "eyes-shut": ("{} does not look at the fleet", EYES_SHUT),
    "ledger-unread": ("{} does not read the ledger", LEDGER_UNREAD),
}
"""A canary for each half of each rule, by the rule's name. Rules without eyes have one half: the ledger."""
_HALVES = "{} sees the first, the third, the fifth violation only, or the second, the fourth, the sixth"
UNEXPECTED, RETURNED = "death-awaited-late.yaml", "flags-evaluated-twice.yaml"
"""A violation that is not expected (the canary is taken out), and a run that may claim no digest."""
_LIES = (
    Wrong("exit-code-lies", "the exit code is 0, whatever the verdict", CODE, (UNEXPECTED,)),
    Wrong("junit-lies", "the JUnit file has no failure, whatever the verdict", FILES, (UNEXPECTED,)),
    Wrong("verdict-lies", "every rule's judgement is written down as held", CHECK, (UNEXPECTED,)),
    Wrong("ledger-lies", "the ledger ends with held, whatever was judged", RECORD, (UNEXPECTED,)),
    Wrong("check-lies", "`check` says held, whatever it finds", CHECK, (UNEXPECTED,)),
    Wrong("digest-claimed", "a digest is claimed where a pause was not waited for", DIGEST, (RETURNED,)),
    Wrong("fold-drops", "the fold drops an event: that a sandbox is paused", STATES, (UNEXPECTED,)),
)
DRILLS: Mapping[str, Wrong] = MappingProxyType(
    {
        **{
            f"{switch}:{rule}": Wrong(f"{switch}:{rule}", words.format(rule), CANARY, (file,))
            for switch, (words, files) in _BLIND.items()
            for rule, file in files.items()
        },
        **{
            f"{OTHER_HALF}:{rule}": Wrong(f"{OTHER_HALF}:{rule}", _HALVES.format(rule), CHECK, (file,))
            for rule, (_, file) in LEFT_BY.items()
        },
        **{each.name: each for each in _LIES},
    }
)
"""Every wrong drill by its name: `SWITCH:RULE` for blind rules."""
