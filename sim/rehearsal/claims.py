"""What a rehearsal has shown, shown on a stand-in, or cannot show here. Pure."""

from __future__ import annotations

from sim.rehearsal.results import Rehearsal
from sim.report import judgements, words
from sim.units import HUGE_PAGE

SHOWN, STAND_IN, NOT_HERE = "SHOWN", "SHOWN ON A STAND-IN", "NOT SHOWABLE HERE"


def claims(found: Rehearsal) -> list[tuple[str, str]]:
    """(status, sentence), each about this rehearsal alone."""
    huge = any(each.page_size == HUGE_PAGE for each in found.plan.sandboxes())
    punched = sum(each.on.punched_pauses for each in found.stages)
    exact = next((e for e in judgements.invariants(found.on.view) if e.name == "bytes_exact"), None)
    made = []
    if punched:
        pages = SHOWN if huge else STAND_IN
        stand_in = "" if huge else " (4 KiB shmem for 2 MiB hugetlb)"
        made.append((pages, f"memory is freed while it is copied: {words.plural(punched, 'pause')} punched{stand_in}"))
    if exact is not None and exact.verdict == "held":
        made.append((SHOWN, f"what was paused comes back byte for byte: {exact.checked} comparisons"))
    source = found.plan.flag_source
    made.append(_source(source))
    if found.plan.time != "real":
        made.append((STAND_IN, "the kill switch is obeyed at once it is known; its way there is drawn from a table"))
    origin = found.plan.propagation.origin
    way = f"the way from LaunchDarkly to your nodes: propagation is {origin}, never taken from this machine's loopback"
    made += [
        (NOT_HERE, way),
        (NOT_HERE, "a rate of failures: injected faults are coverage, no rate"),
        (NOT_HERE, "durability against power loss on the pause path"),
    ]
    return made


def _source(source: str) -> tuple[str, str]:
    match source:
        case "launchdarkly":
            return SHOWN, "cohorts and decisions, by LaunchDarkly's own flag and evaluator"
        case "relay":
            return STAND_IN, "cohorts by the LaunchDarkly SDK's evaluator; a relay on this machine serves it"
    return SHOWN, "cohorts, by the LaunchDarkly SDK's own evaluator"
