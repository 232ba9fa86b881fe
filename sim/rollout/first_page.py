"""The first page of a rehearsal's evidence: the go or no-go and everything that it rests on, in Markdown."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from flags.inline import Rollout, flag_from
from sim.files.figures import number as in_digits
from sim.files.figures import shown as in_words
from sim.files.flag_values import FlagFile
from sim.files.plan import Plan
from sim.report.html import of_host
from sim.rollout.gates import label
from sim.rollout.production import claims, production, ways
from sim.rollout.rehearse import where
from sim.rollout.results import Rehearsal
from sim.rollout.sections import (
    duration,
    fleet_words,
    metric_rows,
    of_production,
    reached_of,
    seconds_of,
    time_words,
    unclear,
    zero,
)


def named_files(plan: Plan) -> list[tuple[str, Path]]:
    """The fleet file and the flag file of a plan: as it names them, and where they are."""
    names = [plan.fleet_file, plan.flags.file if isinstance(plan.flags, FlagFile) else None]
    return [(name, plan.path.parent / name) for name in names if name is not None]


def _beside(said: str) -> Path:
    """Where a named file lies in the folder of evidence: beside the plan, under its own name."""
    return Path(Path(said).name)


def flag_hash(found: Rehearsal, weight: float) -> str:
    """SHA-256 of the flag at a weight in LaunchDarkly's JSON form, keys sorted."""
    flag = flag_from(found.plan.flag, Rollout(weight, found.plan.by))
    return hashlib.sha256(json.dumps(flag, sort_keys=True).encode()).hexdigest()


def first_page(found: Rehearsal) -> list[str]:
    """Markdown: the go or no-go and everything that it rests on."""
    sections = (
        [f"# {found.decision.upper()}: {found.plan.name}", *[f"- {_cell(each)}" for each in found.reasons]],
        _identity(found),
        _why(found),
        ["## Claims", *[f"- **{status}** {sentence}" for status, sentence in claims(found)]],
        _kill_switch(found),
        _stages(found),
        _production(found),
        _metrics(found),
        _steps(found),
        _conditions(found),
        _not_covered(found),
        ["## Reproduce", "```", reproduce(found), "```"],
    )
    return [line for lines in sections if lines for line in [*lines, ""]][:-1]


def reproduce(found: Rehearsal) -> str:
    """The command, with the plan that lies beside the first page."""
    run = found.on.view.run
    lease = "none" if found.plan.lease is None else f"{found.plan.lease:g}s"
    written = (found.plan.document.data.get("engine") or {}).get("mended", ())
    mended = "".join(f" --mend {each}" for each in found.plan.engine.mended if each not in written)
    return f"snapdrill rehearse plan.yaml --seed {run.seed if run else found.plan.seed} --lease {lease}{mended}"


_VOID = (
    "- void with another plan, flag (its salt, its key and the order of its variations draw the cohort), SDK, engine"
    " or kernel than these"
)


def _identity(found: Rehearsal) -> list[str]:
    run, plan = found.on.view.run, found.plan
    host = ", ".join(f"{key} {of_host(value)}" for key, value in run.host.items()) if run else "unknown"
    text = hashlib.sha256(plan.source_text.encode()).hexdigest()
    named = [
        f"- file `{_beside(said)}`, SHA-256 `{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}`"
        + ("" if _beside(said) == Path(said) else f"; the plan looks for it as `{said}`")
        for said, path in named_files(plan)
    ]
    return [
        "## What this is of",
        f"- plan `{plan.name}`, SHA-256 `{text[:16]}`; snapdrill {run.snapdrill if run else 'unknown'}",
        *named,
        *([f"- **ENGINE: {found.on.view.wrong_engine}**"] if found.on.view.wrong_engine else []),
        f"- {fleet_words(plan)}; {time_words(found)}",
        f"- flag `{plan.flag}` by {plan.by}, served by {plan.flag_source}; lease "
        + ("none" if plan.lease is None else f"{plan.lease:g} s"),
        *(f"- flag at {w:g} %: SHA-256 `{flag_hash(found, w)[:16]}`" for w in (e.stage.weight for e in found.stages)),
        f"- seed {run.seed if run else plan.seed}; host: {host}",
        f"- digests: `{_digest(found, on=True)}` with the flag, `{_digest(found, on=False)}` without",
        _VOID,
    ]


def _digest(found: Rehearsal, *, on: bool) -> str:
    ended = (found.on if on else found.off).view.ended
    return (ended.digest or "none claimed")[:16] if ended else "none"


def _why(found: Rehearsal) -> list[str]:
    lines = [
        "## Why: the flag off against on (measured; saved: derived)",
        *_head("stage", "off", "on", "saved at peak"),
    ]
    for each in found.stages:
        off, on = each.off, each.on
        saved = "unknown" if each.saved is None else f"{each.saved / 2**20:.1f} MiB"
        arms = [f"{e.finished}/{e.asked} pauses, {e.refused} refused, {len(e.lost)} lost" for e in (off, on)]
        lines.append(_row(f"{each.stage.weight:g} %", *arms, saved))
    return lines


def _kill_switch(found: Rehearsal) -> list[str]:
    lines = [
        "## Kill switch: how long until OFF is obeyed (turning the flag off undoes nothing)",
        *_head("way", "p50", "p95", "p99", "most", "reached p50", "reached p99", "known", "note"),
    ]
    lines += [_row(e.name, *seconds_of(e), *reached_of(e), e.known, e.note) for e in ways(found)]
    fleet = "given" if found.plan.production else "the rehearsed fleet's"
    title = f"## Irreversible blast radius: sandboxes punched before OFF is obeyed (stream; derived; fleet {fleet})"
    lines += ["", title, *_head("stage", "p50", "p99")]
    return lines + [_row(f"{e.stage.weight:g} %", in_digits(e.blast.p50), in_digits(e.blast.p99)) for e in found.stages]


def _production(found: Rehearsal) -> list[str]:
    made = production(found)
    if made is None:
        return []
    lines = [f"## In production: {of_production(made)}", *_head("stage", "figure", "value", "known", "note")]
    for stage in made.stages:
        figures = (*stage.fleet, *stage.node)
        lines += [_row(f"{stage.weight:g} %", e.label, in_words(e), e.known, e.note) for e in figures]
    lines += [_row("all", each.label, in_words(each), each.known, each.note) for each in made.assumed]
    return [*lines, "", *(f"- {each}" for each in made.notes)]


def _metrics(found: Rehearsal) -> list[str]:
    head, *rows = metric_rows(found)
    if not rows:
        return []
    title = "## Metrics (`!` not met, `?` inconclusive; measured; ratios, with their intervals, and savings derived)"
    return [title, *_head(*head), *(_row(*each) for each in rows), "", *(f"- {each}" for each in unclear(found))]


def _stages(found: Rehearsal) -> list[str]:
    head = ("stage", "exposed", "superset", "pauses", "punched", "discarded", "lost", "lost because of the flag")
    lines = ["## Stages (measured; with no event the 95 % bound, 3/n)", *_head(*head)]
    for each in found.stages:
        on, exposed = each.on, each.exposure
        cells = (f"{len(exposed.sandboxes)} of {len(found.plan.sandboxes())}", "yes" if exposed.is_superset else "no")
        bounds = (zero(on.discarded, on.asked), len(on.lost), zero(len(each.lost_by_flag), on.punched_pauses))
        lines.append(_row(f"{each.stage.weight:g} %", *cells, on.asked, len(on.punched), *bounds))
    return lines


def _steps(found: Rehearsal) -> list[str]:
    lines = ["## Steps", *_head("step", "at", "outcome", "detail")]
    lines += [_row(where(each), duration(each.at), each.outcome.value, each.detail) for each in found.steps]
    return lines


def _conditions(found: Rehearsal) -> list[str]:
    """Each with the test that closes it."""
    rows = [(each, "mend it, and rehearse again") for each in found.conditions]
    if found.plan.propagation.origin != "measured":
        closes = "measure OFF to obeyed in production, write it as `propagation: {measured: [...]}`, rehearse again"
        rows.append((f"propagation is {found.plan.propagation.origin}", closes))
    if all(each.page_size < 2 << 20 for each in found.plan.sandboxes()):
        rows.append(("4 KiB shmem stands for 2 MiB hugetlb", "rehearse `page_size: 2MiB` on a host with a pool"))
    if found.plan.flag_source != "launchdarkly":
        rows.append(("the flag is not LaunchDarkly's own", "rehearse with `flags: {source: launchdarkly}`"))
    return ["## Conditions", *_head("condition", "closed by"), *(_row(*each) for each in rows)]


def _not_covered(found: Rehearsal) -> list[str]:
    left = [f"step {index + 1}, {label(step)}: not taken" for index, step in enumerate(found.plan.steps)][
        len(found.steps) :
    ]
    fixed = ["power loss", "memory pressure from outside the node", "what uploads a finished build"]
    return ["## Not covered", *[f"- {each}" for each in [*left, *fixed]]]


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*("---" for _ in cells))]


def _row(*cells: object) -> str:
    return "| " + " | ".join(_cell(str(each)) for each in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
