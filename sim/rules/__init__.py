"""The rules, one module each, judged by one loop: of a run that is being made, of a stored or foreign ledger."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sim.rules import (
    bytes_exact,
    deaths_explained,
    decision_pinned,
    dirty_agrees,
    failed_copy_discards,
    legal_transitions,
    never_resumed,
    no_leaks,
    no_unpublished,
    off_arrives,
    peak_bounded,
    rollback_intact,
)
from sim.rules.evidence import Evidence, Rule
from sim.rules.finding import Finding, in_file

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        never_resumed.NAME: Rule(never_resumed.judge, never_resumed.observe),
        failed_copy_discards.NAME: Rule(failed_copy_discards.judge, failed_copy_discards.observe),
        bytes_exact.NAME: Rule(bytes_exact.judge, bytes_exact.observe),
        rollback_intact.NAME: Rule(rollback_intact.judge, rollback_intact.observe),
        peak_bounded.NAME: Rule(peak_bounded.judge),
        decision_pinned.NAME: Rule(decision_pinned.judge),
        no_leaks.NAME: Rule(no_leaks.judge, no_leaks.observe),
        legal_transitions.NAME: Rule(legal_transitions.judge),
        no_unpublished.NAME: Rule(no_unpublished.judge, no_unpublished.observe),
        off_arrives.NAME: Rule(off_arrives.judge),
        deaths_explained.NAME: Rule(deaths_explained.judge),
        dirty_agrees.NAME: Rule(dirty_agrees.judge),
    }
)


def judge(evidence: Evidence) -> dict[str, Finding]:
    """Every rule's finding, by its name; while its run goes on nothing is missing yet."""
    return {name: _judge(rule, evidence) for name, rule in RULES.items()}


def observe(evidence: Evidence) -> None:
    """Look at the fleet where there is one, at a barrier or after its teardown. What is seen to be wrong gets the place
    of the step that is under way."""
    reality = evidence.reality
    if reality is None:
        return
    place = {} if evidence.view.step is None or reality.torn_down else in_file(evidence.view.step)
    for name, rule in RULES.items():
        try:
            if rule.observe is not None:
                rule.observe(evidence, reality)
        except (OSError, MemoryError) as error:  # of one look: the others, and the ledger, say what they can
            if not reality.seen[name].refused_by_host("*", error):
                raise
        for found in reality.seen[name].finding.violations:
            for key, value in place.items():
                found.setdefault(key, value)


def _judge(rule: Rule, evidence: Evidence) -> Finding:
    finding = rule.judge(evidence)
    if evidence.may_grow:
        finding.missing.clear()
    for found in finding.violations:
        if "line" not in found and (step := evidence.step_of(found.get("pause", ""))) is not None:
            found.update(in_file(step))
    return finding
