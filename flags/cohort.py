"""Who a flag is on for, and who joins and leaves from one set of flags to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flags.catalog import FLAGS, USE_MEMFD, flag, is_on
from flags.context import ORIGINAL, Contexts, Moment, SandboxAttributes, has_memfd
from flags.launchdarkly import Evaluator, InProcessSource, Items, make_context
from flags.launchdarkly_fleet import FixedFlags, FleetEvaluator
from flags.problem import Who

Sections = tuple[Items, Items]
"""Flags and segments."""


@dataclass(frozen=True, slots=True)
class Member:
    """One sandbox of a fleet; its memory in bytes, None where that is not known."""

    attributes: SandboxAttributes
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A change of flags as a fleet sees it."""

    before: tuple[Member, ...]
    after: tuple[Member, ...]
    joins: tuple[Member, ...]
    leaves: tuple[Member, ...]

    @property
    def is_superset(self) -> bool:
        """True where every member that had the flag on keeps it."""
        return not self.leaves


def fleet_of(count: int) -> list[Member]:
    """A made-up fleet: ten sandboxes a team, eight templates, four clusters."""
    return [
        Member(SandboxAttributes(f"sandbox-{n}", f"template-{n % 8}", f"team-{n // 10}", f"cluster-{n % 4}"))
        for n in range(count)
    ]


def cohort(
    sections: Sections, key: str, fleet: Iterable[Member], contexts: Contexts = ORIGINAL, moment: Moment | None = None
) -> tuple[Member, ...]:
    """The members that have the flag on, as production's SDK serves it when it is read, or at that moment.

    UserError for an unknown key.
    """
    known, evaluator = flag(key), Evaluator(InProcessSource(*sections))
    when = known.moments[0] if moment is None else moment
    try:
        return tuple(
            each
            for each in fleet
            if is_on(evaluator.evaluate(known, make_context(contexts.context(each.attributes, when))).value)
        )
    finally:
        evaluator.close()


def differing(
    sections: Sections, key: str, fleet: Iterable[Member], contexts: Contexts = ORIGINAL
) -> tuple[Member, ...]:
    """The members that Python's SDK would serve something else than production's, Go's, when the flag is read.

    UserError for an unknown key.
    """
    known, fixed = flag(key), FixedFlags(*sections)
    if fixed.model(key) is None:
        return ()
    return tuple(
        each for each in fleet if fixed.differs(key, make_context(contexts.context(each.attributes, known.moments[0])))
    )


def with_memfd(sections: Sections, fleet: Iterable[Member], contexts: Contexts = ORIGINAL) -> frozenset[str]:
    """Names of the members whose guests can be punched: `use-memfd` is on for them when they are resumed, and their
    Firecracker can give its guest's memory away."""
    able = [each for each in fleet if has_memfd(each.attributes.firecracker_version)]
    return frozenset(each.attributes.sandbox for each in cohort(sections, USE_MEMFD, able, contexts, "resume"))


def step(before: Sections, after: Sections, key: str, fleet: Sequence[Member], contexts: Contexts = ORIGINAL) -> Step:
    """Who joins and who leaves from `before` to `after`."""
    had, have = cohort(before, key, fleet, contexts), cohort(after, key, fleet, contexts)
    names, kept = {each.attributes.sandbox for each in had}, {each.attributes.sandbox for each in have}
    return Step(
        before=had,
        after=have,
        joins=tuple(each for each in have if each.attributes.sandbox not in names),
        leaves=tuple(each for each in had if each.attributes.sandbox not in kept),
    )


def struck(who: Who, fleet: Sequence[Member], contexts: Contexts = ORIGINAL) -> tuple[Member, ...] | None:
    """The members that get another value than the safe one by a mistake, as production's SDK serves them.

    None for a flag that is not of the pause path.
    """
    if who.key not in FLAGS:
        return None
    kept = contexts
    if who.lost is not None:
        shapes = {
            moment: {kind: names for kind, names in shape.items() if kind != who.lost}
            for moment, shape in contexts.shapes.items()
        }
        kept = Contexts(contexts.written, shapes)
    now = _unsafe(who.key, (who.flags, who.segments), fleet, kept)
    spared = [False] * len(fleet)
    if who.without is not None:
        spared = _unsafe(who.key, (who.without, who.segments), fleet, contexts)
    return tuple(each for each, on, before in zip(fleet, now, spared, strict=True) if on and not before)


def _unsafe(key: str, sections: Sections, fleet: Sequence[Member], contexts: Contexts) -> list[bool]:
    known = FLAGS[key]
    made = [make_context(contexts.context(each.attributes, known.moments[0])) for each in fleet]
    return [each.value != known.safe for each in FleetEvaluator(known, made).each(*sections)]
