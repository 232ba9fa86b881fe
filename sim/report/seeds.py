"""What many seeds of one scenario came to: in words, and as an element of a JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, get_args

from sim.expectations import Invariant
from sim.fault_catalogue import CATALOGUE, KINDS
from sim.report.judgements import NOT_EXERCISED
from sim.report.words import plural
from sim.seeds import ERROR, Seed, Seeds
from sim.verdict import Verdict

VERSION = 1
_WORDS = {Verdict.HELD: "HELD", Verdict.VIOLATED: "VIOLATED", Verdict.INCONCLUSIVE: "INCONCLUSIVE"}


def seed_line(seed: Seed) -> str:
    """One failing seed: what, who, why, and where its run and the scenario that it drew are."""
    parts = [f"seed {seed.seed}", seed.outcome.upper(), seed.subject or "", seed.sandbox or ""]
    line = "  ".join(part for part in parts if part) + (f": {seed.why}" if seed.why else "")
    return line + (f"\n  {shlex.quote(str(seed.run_dir))}" if seed.run_dir else "")


def summary(seeds: Seeds) -> str:
    """The verdict over all seeds, what exercised it, and the faults that fired; no newline at the end."""
    sections = [_head(seeds), _invariants(seeds), _faults(seeds), _unexercised(seeds), _next(seeds.failing)]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _head(seeds: Seeds) -> list[str]:
    code = seeds.exit_code.name.replace("_", " ")
    counts = {outcome: sum(each.outcome == outcome for each in seeds.done) for outcome in (*Verdict, ERROR)}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "held")
    left = seeds.wanted - len(seeds.done)
    lines = [f"{seeds.scenario.name}   {plural(len(seeds.done), 'seed')}   {code}"]
    lines.append(
        f"{told}{f', {left} not run' if left else ''}; {plural(seeds.sandboxes, 'sandbox', 'sandboxes')}, "
        f"{plural(seeds.pauses, 'pause')} in {seeds.seconds:.1f} s"
    )
    return lines


def _invariants(seeds: Seeds) -> list[str]:
    broken = {each.subject for each in seeds.failing if each.outcome == Verdict.VIOLATED}
    lines = ["invariants, over all seeds"]
    for name in get_args(Invariant):
        count = seeds.exercised[name]
        word = Verdict.VIOLATED if f"invariant:{name}" in broken else Verdict.HELD if count else NOT_EXERCISED
        lines.append(f"  {word:<13}  {name:<21}" + (f"  checked {plural(count, 'time')}" if count else ""))
    return [line.rstrip() for line in lines]


def _faults(seeds: Seeds) -> list[str]:
    """How often each fault fired, point by kind; a dash where the catalogue has none."""
    if not seeds.armed and not seeds.fired:
        return []
    kinds = list(KINDS)
    widths = [max(len(kind), 6) for kind in kinds]  # as many fit into 80 columns
    lines = ["faults that fired", f"  {'':<12}" + "".join(f"{k:>{w + 1}}" for k, w in zip(kinds, widths, strict=True))]
    for point, spec in CATALOGUE.items():
        cells = [str(seeds.fired[point, kind]) if kind in spec.kinds else "-" for kind in kinds]
        lines.append(f"  {point:<12}" + "".join(f"{c:>{w + 1}}" for c, w in zip(cells, widths, strict=True)))
    if idle := seeds.never_fired:
        lines.append("armed, but never fired: " + ", ".join(f"{point} ({kind})" for point, kind in idle))
    return lines


def _unexercised(seeds: Seeds) -> list[str]:
    return [f"INCONCLUSIVE {subject}: {reason}" for subject, reason in seeds.unexercised]


def _next(failing: Sequence[Seed]) -> list[str]:
    """What to do about the first failure."""
    run = next((each.run_dir for each in failing if each.run_dir is not None), None)
    if run is None:
        return []
    folder = shlex.quote(str(run))
    return [
        f"run again  snapdrill run {folder}/scenario.yaml",
        f"look at it snapdrill replay {folder}",
        f"shrink it  snapdrill shrink {folder}",
    ]


def document(seeds: Seeds) -> dict[str, Any]:
    """JSON-ready values."""
    fired = {point: {k: n for (p, k), n in seeds.fired.items() if p == point} for point in CATALOGUE}
    return {
        "name": seeds.scenario.name,
        "seeds": seeds.wanted,
        "run": len(seeds.done),
        "held": sum(each.outcome == Verdict.HELD for each in seeds.done),
        "exit_code": int(seeds.exit_code),
        "seconds": round(seeds.seconds, 3),
        "failing": [_failing(each) for each in seeds.failing],
        "not_exercised": [{"subject": subject, "reason": reason} for subject, reason in seeds.unexercised],
        "invariants": {name: seeds.exercised[name] for name in get_args(Invariant)},
        "fired": {point: kinds for point, kinds in fired.items() if kinds},
        "never_fired": [list(each) for each in seeds.never_fired],
    }


def _failing(seed: Seed) -> dict[str, Any]:
    return {
        "seed": seed.seed,
        "outcome": str(seed.outcome),
        "subject": seed.subject,
        "sandbox": seed.sandbox,
        "reason": seed.why,
        "run_dir": str(seed.run_dir) if seed.run_dir else None,
    }
