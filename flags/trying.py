"""Lint that tries: LaunchDarkly's own evaluator is asked about every cell of a flag.

A *witness* is a context that was evaluated. A claim about all contexts (a rule that matches none, or all) is about the
table of contexts and the cells that were walked. A flag whose cells are too many is not tried, and a warning names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flags.catalog import FLAGS, PUNCH
from flags.cells import LIMIT, ContextCell, Reads, clause_json, has_pattern, probe
from flags.context import Shape, Types
from flags.dead_clause import attribute_problem, why_dead
from flags.document import Path, Severity
from flags.launchdarkly_fleet import FixedFlags
from flags.problem import Flags, Problem, Who, clauses_of, kind_problem, members_of, objects
from flags.unsafe import is_destructive, repeats_nest

_WHOLE = 100_000
_NONE = "as the flag stands, and the rule refuses none of them"
_NEVER = {"contextKind": "user", "attribute": "key", "op": "in", "values": []}
_FIRST = "every sandbox gets the first entry of any weight, all at once; other SDKs than Go's serve the first entry"
_ALL_IN_0 = "without the attribute every sandbox is in bucket 0: all get the first entry that has any weight"


@dataclass(frozen=True, slots=True)
class FlagQuestion:
    """A flag in LaunchDarkly's JSON form, what it asks for, and which variations no context should get by mistake.

    `flags` and `segments` are all of the file's that are sound and that it names, directly or not. `destructive`: an
    unsafe variation cannot be undone, or another flag requires it. `safe` is the value to serve instead, in words.
    `types` are those of attributes that are not all text.
    """

    key: str
    flags: Flags
    segments: Flags
    shape: Shape
    unsafe: frozenset[int]
    destructive: bool
    safe: str
    types: Types = field(default_factory=dict)

    @property
    def flag(self) -> Mapping[str, Any]:
        return self.flags[self.key]

    @property
    def direct(self) -> set[str]:
        """The segments that the flag itself names, directly or by way of others."""
        return members_of(self.flag, self.segments)

    @property
    def verb(self) -> str:
        """What an unsafe variation does to a context."""
        value = self.flag["variations"][min(self.unsafe)] if self.unsafe else None
        return "is punched" if self.key == PUNCH else f"gets {json.dumps(value)}"


class Tried:
    """What the SDK serves in each cell of a flag, as if it were on and had no prerequisites."""

    def __init__(self, asked: FlagQuestion) -> None:
        self.asked = asked
        segments = {name: asked.segments[name] for name in asked.direct}
        self._fixed = FixedFlags({asked.key: {**asked.flag, "on": True, "prerequisites": []}}, segments)
        self.model = self._fixed.model(asked.key)
        self.cells: list[ContextCell] = []
        self.count = 0
        self.unseen = False
        self.is_slow = _is_slow((asked.flag, *asked.segments.values()))
        if not self.is_slow:
            reads = Reads(self.model, self._fixed.segments(), asked.shape, asked.types)
            self.cells, self.count = reads.cells()
            self.unseen = reads.unseen
        self.answers = [self._answer(each) for each in self.cells]

    def _answer(self, cell: ContextCell, *, as_go: bool = True) -> Any:
        return self._fixed.answer(self.asked.key, cell.context, as_go=as_go)

    @cached_property
    def inside(self) -> list[int]:
        """The cells of the table of contexts."""
        return [at for at, cell in enumerate(self.cells) if not cell.lacks]

    def said(self, at: int) -> list[Any]:
        """What Go's SDK says in a cell, and Python's where that may be something else."""
        cell = self.cells[at]
        return [self.answers[at], *([] if self._fixed.is_same(cell.context) else [self._answer(cell, as_go=False)])]

    def rollout(self, answer: Any) -> tuple[Path, Any]:
        """The rollout that an answer comes from with its path in the flag; None where it comes from none."""
        index = answer.reason.get("ruleIndex")
        part = self.model.fallthrough if index is None else self.model.rules[index].variation_or_rollout
        if answer.reason["kind"] not in {"RULE_MATCH", "FALLTHROUGH"} or part.variation is not None:
            return (), None
        return (*(("fallthrough",) if index is None else ("rules", index)), "rollout"), part.rollout

    def possible(self, answer: Any, cell: ContextCell) -> set[int]:
        """The variations that contexts of a cell may get with this answer, whatever bucket they are in."""
        _, rollout = self.rollout(answer)
        if rollout is not None and has_bucket(rollout, cell):
            return entries(rollout)
        return set() if answer.variation_index is None else {answer.variation_index}

    @cached_property
    def served(self) -> set[int]:
        """The variations that contexts of the table can get; all where that was not tried."""
        if not self.cells:
            return set(range(len(self.asked.flag["variations"])))
        return {each for at in self.inside for each in self.possible(self.answers[at], self.cells[at])}

    @cached_property
    def harmed(self) -> list[ContextCell]:
        """The cells of the table whose contexts may get an unsafe variation."""
        cells = ((self.answers[at], self.cells[at]) for at in self.inside)
        return [cell for answer, cell in cells if self.possible(answer, cell) & self.asked.unsafe]

    @property
    def denying(self) -> set[str]:
        """The segments that a rule names, directly or not, which serves no unsafe variation where others may."""
        matters = self.harmed or self.asked.destructive
        rules = [rule for rule in self.model.rules if not _serves(rule) & self.asked.unsafe] if matters else []
        return {name for rule in rules for name in members_of(_item_of(rule.clauses), self.asked.segments)}

    def matching(self, clauses: list[Any]) -> list[int]:
        """The cells that meet all of these clauses, of those that have every attribute."""
        alone = FixedFlags({"probe": probe([clause_json(each) for each in clauses])}, self.asked.segments)
        answers = [alone.answer("probe", each.context) for each in self.cells]
        return [
            at
            for at, answer in enumerate(answers)
            if answer is not None and answer.variation_index == 0 and self.cells[at].is_whole
        ]

    def takes(self, index: int, *, inside: bool = False) -> list[ContextCell]:
        """The cells that a rule serves, of those that have every attribute; `inside`: of the table of contexts."""
        served = zip(self.answers, self.cells, strict=True)
        taken = [cell for answer, cell in served if answer.reason.get("ruleIndex") == index and cell.is_whole]
        return [cell for cell in taken if not cell.lacks] if inside else taken

    def is_open(self, clauses: list[Any]) -> bool:
        """True where the cells do not show which contexts match: a regular expression, or a share without example."""
        named = members_of(_item_of(clauses), self.asked.segments)
        models = self._fixed.segments()
        patterns = has_pattern(clauses) or any(
            has_pattern(rule.clauses) for name in named for rule in models[name].rules
        )
        return patterns or (self.unseen and bool(named))

    def witness(self, cell: ContextCell) -> str:
        """`sandbox kernel-version "6.1.0" is punched`: as the flag stands, or else once it is on."""
        asked = self.asked
        go = self._answer(cell)
        drawn = " in its share" if len(self.possible(go, cell)) > 1 else ""
        needed = {str(each["key"]) for flag in asked.flags.values() for _, each in objects(flag, "prerequisites")}
        gated = not needed <= asked.flags.keys()  # which is an error of its own, and the SDK would log it
        if not gated:
            now = FixedFlags(asked.flags, asked.segments).answer(asked.key, cell.context)
            gated = now is None or now.reason["kind"] in {"OFF", "PREREQUISITE_FAILED", "ERROR"}
        when = " once the flag is on and its prerequisites are met" if gated else ""
        return f"{cell.words()} {asked.verb}{drawn}{when}"

    def who(self, **changes: Any) -> Who:
        """Who gets the unsafe value, as the flag stands."""
        return Who(self.asked.key, self.asked.flags, self.asked.segments, **changes)


def _item_of(clauses: Iterable[Any]) -> dict[str, Any]:
    return {"rules": [{"clauses": list(map(clause_json, clauses))}]}


def _is_slow(items: Iterable[Mapping[str, Any]]) -> bool:
    """True where a regular expression could hold the evaluator up."""
    clauses = [clause for item in items for clause in clauses_of(item) if clause.get("op") == "matches"]
    return any(isinstance(each, str) and repeats_nest(each) for clause in clauses for each in clause["values"])


def has_bucket(rollout: Any, cell: ContextCell) -> bool:
    """False where the SDK has nothing to draw by: the kind is absent, or the attribute is no text or whole number."""
    return is_drawn(rollout.context_kind, None if rollout.is_experiment else rollout.bucket_by, cell)


def is_drawn(kind: str | None, by: Any, cell: ContextCell) -> bool:
    """As has_bucket(), of a share of a kind by an attribute."""
    part = cell.data.get(kind or "user")
    if part is None or by is None:
        return part is not None
    value = part.get(by[0]) if by.depth == 1 else None
    return isinstance(value, str) or type(value) is int


def entries(rollout: Any) -> set[int]:
    """The variations that a rollout gives to some bucket."""
    found, total = set[int](), 0
    for entry in rollout.variations:
        if entry.weight > 0 and total < _WHOLE:
            found.add(entry.variation)
        total += entry.weight
    return found | ({rollout.variations[-1].variation} if total < _WHOLE else set())


def claims(path: Path, tried: Tried) -> Iterator[Problem]:
    """What is wrong with one flag; `path` is where it stands."""
    if tried.is_slow:  # which is an error of its own
        return
    asked = tried.asked
    yield from _off(path, tried)
    if not tried.cells:
        yield untried(path, tried.count)
        return
    if any(tried.answers[at].reason.get("errorKind") == "EXCEPTION" for at in tried.inside):
        production, fix = "every context gets the code's default", "correct the values of its clauses"
        yield Problem(path, f'LaunchDarkly\'s evaluator cannot evaluate "{path[-1]}"', production, fix)
        return
    yield from _undrawn(path, tried)
    for index, rule in enumerate(tried.model.rules):
        yield from _rule((*path, "rules", index), tried, index, rule)
    if not any(tried.answers[at].reason["kind"] == "FALLTHROUGH" for at in tried.inside):
        for_lacking = [each for at, each in enumerate(asked.flag["rules"]) if not tried.takes(at, inside=True)]
        yield from _otherwise(path, (*path, "fallthrough"), tried, for_lacking)


def _rule(path: Path, tried: Tried, index: int, rule: Any) -> Iterator[Problem]:
    taken = tried.takes(index)
    is_unsafe = bool(_serves(rule) & tried.asked.unsafe)
    if not taken:
        yield from _idle(path, tried, index, rule)
    elif is_unsafe and all(cell.lacks for cell in taken) and not tried.is_open(rule.clauses):
        message = f"rule {index + 1} serves only contexts that lack a kind"
        production = f"{taken[0].words()} {tried.asked.verb}: what should have been refused"
        yield Problem(path, message, production, f"let it serve {tried.asked.safe}")
    elif is_unsafe:
        yield from _catch_all(path, tried, index, rule)


def untried(path: Path, count: int) -> Problem:
    """A flag or segment with too many cells."""
    message = f'"{path[-1]}" was not tried: its rules distinguish {count:,} contexts, more than {LIMIT:,}'
    production = "whether a rule matches no sandbox, or every sandbox, is not known"
    return Problem(path, message, production, "split it, or move clauses into a prerequisite", "warning")


def _off(path: Path, tried: Tried) -> Iterator[Problem]:
    """What off serves, where it is destructive."""
    asked = tried.asked
    switched = {asked.key: {**asked.flag, "on": False}}
    index = asked.flag.get("offVariation")
    if index is not None and asked.key in FLAGS and is_destructive(FLAGS[asked.key], asked.flag["variations"][index]):
        value = json.dumps(asked.flag["variations"][index])
        message = f'off serves {value}, so "{asked.key}" cannot be switched off'
        production = f"the kill switch does nothing: switched off, every context {asked.verb}"
        who = Who(asked.key, {**asked.flags, **switched}, asked.segments, when="when it is off")
        yield Problem((*path, "offVariation"), message, production, f"let off serve {asked.safe}", "error", who)


def _serves(rule: Any) -> set[int]:
    part = rule.variation_or_rollout
    return entries(part.rollout) if part.variation is None and part.rollout is not None else {part.variation}


def _undrawn(path: Path, tried: Tried) -> Iterator[Problem]:
    """Rollouts that have nothing to draw a context by, in either SDK."""
    asked, found = tried.asked, dict[Path, Problem]()
    for at, cell in enumerate(tried.cells):
        for answer in tried.said(at):
            where, rollout = tried.rollout(answer)
            if rollout is None or has_bucket(rollout, cell):
                continue
            here, first = (*path, *where), (*path, *where, "variations", 0)
            if not cell.lacks and here not in found:
                found |= dict.fromkeys([here], _without(here, tried, rollout))
            is_first = rollout.variations[0].variation in asked.unsafe
            if answer.variation_index in asked.unsafe and is_first and first not in found:
                found[first] = _unsafe_first(first, tried, cell, rollout)
    yield from found.values()


def _without(here: Path, tried: Tried, rollout: Any) -> Problem:
    """A rollout by a kind or an attribute that the table of contexts does not have."""
    written: dict[str, Any] = {"contextKind": rollout.context_kind, "variations": []}
    who = tried.who() if tried.harmed else None
    for problem in kind_problem(here, written, _FIRST, tried.asked.shape):
        return problem._replace(who=who)
    written["bucketBy"] = rollout.bucket_by.path
    unknown = attribute_problem(here, written, "bucketBy", tried.asked.shape[rollout.context_kind], _ALL_IN_0)
    if unknown is not None:
        return unknown._replace(who=who)
    name = f"{rollout.context_kind} {rollout.bucket_by.path}"
    message = f"the rollout has nothing to draw by where {name} is neither text nor a whole number"
    production = "such sandboxes are in bucket 0: all get the first entry that has any weight"
    return Problem(here, message, production, "draw by the key", "error", who)


def _unsafe_first(first: Path, tried: Tried, cell: ContextCell, rollout: Any) -> Problem:
    kind = rollout.context_kind or "user"
    by = "any weight; with some SDKs at 0 % too"
    whom = cell.words() if cell.lacks else f'every context, for none has the kind "{kind}",'
    clause = json.dumps({"attribute": "kind", "op": "in", "values": [kind], "negate": True})
    fix = f"let a first rule serve {tried.asked.safe} to contexts without the kind, by the clause {clause}"
    who = tried.who()
    if kind in tried.asked.shape:
        who = tried.who(without=tried.asked.flags, lost=kind, when=f'in addition when they lose the kind "{kind}"')
    production = f"{whom} {tried.asked.verb} at {by}"
    return Problem(first, "the unsafe variation is listed first", production, fix, "error", who)


def _idle(path: Path, tried: Tried, index: int, rule: Any) -> Iterator[Problem]:
    """A rule that matches no context, or comes too late."""
    known = [clause for clause in rule.clauses if not tried.is_open([clause])]
    alone = tried.matching(known)
    if alone and len(known) < len(rule.clauses):
        return
    if not alone:
        later = [at for at in tried.inside if tried.answers[at].reason.get("ruleIndex", index + 1) > index]
        harmed = _unlimited(tried, rule, (at for at in later if tried.answers[at].reason["kind"] != "TARGET_MATCH"))
        denies = bool(harmed) or (tried.asked.destructive and not _serves(rule) & tried.asked.unsafe)
        nothing = "the clause matches no sandbox, so the rule does nothing"
        if denies:  # nothing to deny yet: the flag is at 0 %
            nothing = "the rule denies no context, also when more of them get the unsafe value"
        production = _in_vain(tried, rule, harmed) or nothing
        who = tried.who(when=_NONE) if harmed else None
        for each in dead_clauses(path, tried, rule, production, denies=denies):
            yield each._replace(who=who)
        yield from _once_mended(path, tried, index, rule)
        return
    before = {tried.answers[at].reason.get("ruleIndex") for at in alone}
    if any(each is not None and tried.is_open(tried.model.rules[each].clauses) for each in before):
        return
    harmed = _unlimited(tried, rule, (at for at in alone if not tried.cells[at].lacks))
    by = ", ".join(f"rule {each + 1}" for each in sorted(before - {None})) or "a target"
    message = f"rule {index + 1} is never reached: {by} takes every context that it matches"
    production = _in_vain(tried, rule, harmed) or "the rule does nothing"
    severity: Severity = "error" if harmed else "warning"
    fix = "put it before them, or remove it"
    yield Problem(path, message, production, fix, severity, tried.who(when=_NONE) if harmed else None)


def _once_mended(path: Path, tried: Tried, index: int, rule: Any) -> Iterator[Problem]:
    """What is wrong with the rollout of a rule that matches no context, for when it does."""
    if rule.variation_or_rollout.rollout is None:
        return
    live = [clause_json(clause) for clause in rule.clauses if tried.matching([clause])]
    rules = list(tried.asked.flag["rules"])
    rules[index] = {**rules[index], "clauses": live}
    yield from _otherwise(path[:-2], path, tried, rules)


def _otherwise(path: Path, part: Path, tried: Tried, rules: list[Any]) -> Iterator[Problem]:
    """What is wrong with the rollout of a part of the flag that would be reached if the flag had these rules."""
    asked = tried.asked
    other = Tried(replace(asked, flags={**asked.flags, asked.key: {**asked.flag, "rules": rules}}))
    yield from (each._replace(who=None) for each in _undrawn(path, other) if each.path[: len(part)] == part)


def _unlimited(tried: Tried, rule: Any, cells: Iterable[int]) -> list[ContextCell]:
    """Of these cells those that may get an unsafe variation from which the rule should keep them, or most of them."""
    unsafe, served = tried.asked.unsafe, _serves(rule)
    found = ((tried.possible(tried.answers[at], tried.cells[at]), tried.cells[at]) for at in cells)
    if served & unsafe:
        return [cell for possible, cell in found if served - unsafe and possible and possible <= unsafe]
    return [cell for possible, cell in found if possible & unsafe]


def _in_vain(tried: Tried, rule: Any, harmed: list[ContextCell]) -> str:
    if not harmed:
        return ""
    verb = "limits" if _serves(rule) & tried.asked.unsafe else "denies"
    return f"the rule {verb} no context: {tried.witness(harmed[0])}"


def dead_clauses(path: Path, tried: Tried, rule: Any, production: str, *, denies: bool) -> Iterator[Problem]:
    """Why no cell meets all clauses of a rule: each clause that no cell meets, or that they exclude each other."""
    severity: Severity = "error" if denies else "warning"
    known = [at for at, clause in enumerate(rule.clauses) if not tried.is_open([clause])]
    dead = [at for at in known if not tried.matching([rule.clauses[at]])]
    for at in dead:
        cause = why_dead(rule.clauses[at], tried.asked.shape, tried.asked.types, tried.asked.segments)
        if cause is not None:
            grave = cause.severity == "error" or (denies and not cause.may_be_meant)
            here = (*path, "clauses", at, *cause.place)
            yield Problem(here, cause.message, production, cause.fix, "error" if grave else "warning")
    if not dead:
        fix = "write a rule for each, or remove the clause that excludes the other"
        yield Problem(path, "no context meets all clauses of the rule", production, fix, severity)


def _catch_all(path: Path, tried: Tried, index: int, rule: Any) -> Iterator[Problem]:
    """A rule that serves the unsafe value to every context: who did not mean it has forgotten a clause."""
    asked = tried.asked
    alike = [at for at, each in enumerate(tried.model.rules) if at >= index and _is_for_all(tried, each)]
    if index not in alike:
        return
    rules = [  # in their places, so that the others keep their numbers
        {**each, "clauses": [_NEVER]} if at in alike else each for at, each in enumerate(asked.flag["rules"])
    ]
    spared = {**asked.flag, "rules": rules}
    without = {**asked.flags, asked.key: spared}
    other = FixedFlags({asked.key: {**spared, "on": True, "prerequisites": []}}, asked.segments)
    more = [cell for cell in tried.harmed if not _stays(tried, other, cell, rule)]
    why = "its clauses match every context" if rule.clauses else "it has no clauses"
    production = "without the rule it would be the same"
    if more:
        production = f"{tried.witness(more[0])}; without the rule it would not, or not for sure"
    hides = any(_serves(each) - asked.unsafe for each in tried.model.rules[index + 1 :])
    if hides and tried.harmed and not more:
        production = f"{tried.witness(tried.harmed[0])}, and no later rule can refuse it"
    severity: Severity = "error" if (more or hides) and asked.destructive else "warning"
    share = "" if _serves(rule) <= asked.unsafe else " in its share"
    message = f"every sandbox {asked.verb}{share} by rule {index + 1}: {why}"
    fix = "say in a clause which contexts it is for, or remove the rule"
    yield Problem(
        path, message, production, fix, severity, tried.who(without=without, when="by the rule") if more else None
    )


def _is_for_all(tried: Tried, rule: Any) -> bool:
    """True where its clauses match every context of the table. Who names every context with a kind means it."""
    names_kinds = rule.clauses and all(
        each.attribute is not None and each.attribute.path == "kind" for each in rule.clauses
    )
    if names_kinds or tried.is_open(rule.clauses):
        return False
    return set(tried.inside) <= set(tried.matching(rule.clauses))


def _stays(tried: Tried, other: FixedFlags, cell: ContextCell, rule: Any) -> bool:
    """Whether a context may get an unsafe variation without the rule too, or is as sure to."""
    possible = tried.possible(other.answer(tried.asked.key, cell.context), cell)
    if _serves(rule) <= tried.asked.unsafe:
        return possible <= tried.asked.unsafe
    return bool(possible & tried.asked.unsafe)
