"""Lint that tries: which contexts a segment's rules and shares match, with production's SDK (Go) and with Python's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flags.cells import probe
from flags.context import Shape, Types
from flags.dead_clause import attribute_problem
from flags.document import Path, Severity
from flags.launchdarkly_fleet import FixedFlags
from flags.problem import Flags, Problem, kind_problem, members_of
from flags.trying import FlagQuestion, Tried, dead_clauses, is_drawn, untried

_WHOLE = 100_000


def segment_claims(name: str, segments: Flags, shape: Shape, types: Types, *, denies: bool) -> Iterator[Problem]:
    """What is wrong with the rules of one segment; `denies`: a deny rule names it, directly or not."""
    path: Path = ("segments", name)
    clause = {"attribute": "", "op": "segmentMatch", "values": [name]}
    asks = {**probe([clause]), "key": name}
    named = {each: segments[each] for each in (name, *members_of(segments[name], segments))}
    question = FlagQuestion(name, {name: asks}, named, shape, frozenset(), False, "", types)
    tried = Tried(question)
    if tried.is_slow:
        return
    if not tried.cells:
        yield untried(path, tried.count)
        return
    model = FixedFlags({}, named).segments()[name]
    for index, rule in enumerate(model.rules):
        known = [clause for clause in rule.clauses if not tried.is_open([clause])]
        here = (*path, "rules", index)
        met = tried.matching(known)
        if not met:
            production = "the clause matches no sandbox, so the rule adds no member"
            yield from dead_clauses(here, tried, rule, production, denies=denies)
        elif rule.weight is not None and len(known) == len(rule.clauses):
            yield from _share(here, tried, rule, met, _alone(name, named, index))


def _alone(name: str, named: Flags, index: int) -> Flags:
    """The segments, this one with no member but by one rule."""
    lists = ("included", "excluded", "includedContexts", "excludedContexts")
    bare = {each: value for each, value in named[name].items() if each not in lists}
    return {**named, name: {**bare, "rules": [named[name]["rules"][index]]}}


def _share(path: Path, tried: Tried, rule: Any, met: list[int], alone: Flags) -> Iterator[Problem]:
    """A share with nothing to draw by: each SDK makes all contexts that its clauses match members, or none."""
    inside = [tried.cells[at] for at in met if not tried.cells[at].lacks]
    if not inside or any(is_drawn(rule.rollout_context_kind, rule.bucket_by, cell) for cell in inside):
        return
    asked = tried.asked
    fixed = FixedFlags(asked.flags, alone)
    go, python = (
        any(_is_member(fixed.answer(asked.key, cell.context, as_go=as_go)) for cell in inside)
        for as_go in (True, False)
    )
    said = f"the share of {rule.weight / 1000:g} % is {_of(go)} with production's SDK (Go), {_of(python)} with Python's"
    written: Mapping[str, Any] = {"rolloutContextKind": rule.rollout_context_kind, "variations": []}
    severity: Severity = "error"
    for problem in kind_problem(path, written, said, asked.shape, "rolloutContextKind"):
        yield problem._replace(severity=severity)
        return
    known = asked.shape[rule.rollout_context_kind]
    given = {**written, "bucketBy": rule.bucket_by.path}
    unknown = attribute_problem(path, given, "bucketBy", known, said)
    yield from [unknown] if unknown is not None else []


def _is_member(answer: Any) -> bool:
    return answer is not None and answer.variation_index == 0


def _of(member: bool) -> str:
    return "every sandbox" if member else "no sandbox"
