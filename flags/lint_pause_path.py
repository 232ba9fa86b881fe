"""Values that are right one by one and void or illegal together, on the pause path."""

from __future__ import annotations

from collections.abc import Iterator

from flags.catalog import CATALOG, DEDUP, FLAGS, PUNCH, USE_MEMFD, Value, is_on
from flags.lint_references import reachable
from flags.problem import Flags, Problem

IN_PLACE, INFLIGHT = "in-place-checkpoint", "memfd-dedup-inflight-serve"


def combinations(sound: Flags) -> Iterator[Problem]:
    """Judged by what each flag can serve to somebody: whether two of them meet in one sandbox is not known."""
    values = {each.key: _values(each.key, sound) for each in CATALOG}
    for each in CATALOG:
        for needed in each.needs:
            if each.key in sound and any(map(is_on, values[each.key])) and not any(map(is_on, values[needed])):
                message = f'"{each.key}" has no effect: it needs "{needed}", which is never on'
                fix = f'switch "{needed}" on, or this off'
                yield Problem(("flags", each.key), message, "the flag does nothing", fix, "warning")
    if any(map(is_on, values[PUNCH])):
        yield from _with_punching(values)


def _with_punching(values: dict[str, list[Value]]) -> Iterator[Problem]:
    if not all(map(is_on, values[USE_MEMFD])):
        message = f'"{PUNCH}" is void where "{USE_MEMFD}" is off'
        production = "such a sandbox has no memfd: nothing is punched, and its pauses peak at about 2x"
        fix = f'serve "{USE_MEMFD}" true to everybody who may punch'
        yield Problem(("flags", USE_MEMFD), message, production, fix, "warning")
    if any(map(is_on, values[IN_PLACE])):
        message = f'"{PUNCH}" is void with "{IN_PLACE}"'
        production = "an in-place checkpoint borrows the memory of a guest that goes on: it must never be punched"
        fix = "count on punching at pauses only, or switch one of the two off"
        yield Problem(("flags", IN_PLACE), message, production, fix, "warning")
    if any(map(is_on, values[INFLIGHT])):
        dedup = any(map(is_on, values[DEDUP]))
        message = f'"{PUNCH}" is illegal with "{INFLIGHT}"' + ("" if dedup else f', once "{DEDUP}" is on')
        production = "readers are served from the memory that is being punched: they would read zeros"
        fix = f'switch "{INFLIGHT}" off for everybody who may punch'
        yield Problem(("flags", INFLIGHT), message, production, fix, "error" if dedup else "warning")


def _values(key: str, sound: Flags) -> list[Value]:
    """What the flag can serve; its safe value where the file does not have it."""
    if key not in sound:
        return [FLAGS[key].safe]
    accepted = [FLAGS[key].accepted(sound[key]["variations"][index]) for index in reachable(key, sound)]
    return [value for value in accepted if value is not None]
