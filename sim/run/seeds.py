"""One scenario, many seeds."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from engine.errors import UserError
from sim.files.expectations import Invariant
from sim.files.faults import CATALOGUE, KINDS
from sim.files.scenario import Scenario
from sim.files.steps import Crash, Inject
from sim.record import events
from sim.record.codes import fault_kind
from sim.record.folder import SCENARIO_FILE, remove
from sim.record.verdict import CUT_OFF, INVARIANT, ExitCode, Verdict, worst
from sim.report import github
from sim.report.failure import here
from sim.report.judgements import NOT_EXERCISED
from sim.report.junit import RUN
from sim.report.table import Code, Paragraph, Section, Table, code, facts, markdown, text, toned
from sim.report.words import Tone, plural, scrub, verdict_tone
from sim.run.batch import Batch, Item
from sim.run.cases import Unit, UnitResult, first_reason, why
from sim.run.dask import open_pool
from sim.run.draw import seed_runs
from sim.run.pool import Pool, default_jobs, default_memory
from sim.run.runner import RunOptions

MOST = 1_000_000
ERROR = "error"
_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1-200` or `5,9,20-30` as seeds, each once, in the order written. UserError for anything else."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UserError(f'--seeds: expected seeds such as 1-200 or 5,9,20-30, got "{part.strip()}"')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"--seeds: the range {part.strip()} is empty; write the smaller seed first")
        if last - first + 1 + len(found) > MOST:
            raise UserError(f"--seeds: more than {MOST:,} seeds; give fewer")
        found.update(dict.fromkeys(range(first, last + 1)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """What to run; `time_limit` in seconds per seed."""

    seeds: tuple[int, ...]
    runs_dir: Path
    jobs: int
    time_limit: float = 120.0
    cache_dir: Path | None = None

    @classmethod
    def of(cls, seeds: str, options: RunOptions, jobs: int | None) -> SeedOptions:
        """`--seeds` and `--jobs` with the options of every run; UserError for invalid seeds."""
        runs_dir, cache_dir = options.runs_dir.absolute(), options.cache_dir
        cache_dir = cache_dir.absolute() if cache_dir else None
        return cls(parse_seeds(seeds), runs_dir, jobs or default_jobs(), options.time_limit, cache_dir)


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed's end: a verdict or `error`, and why it did not hold; its run folder is kept then."""

    seed: int
    outcome: str
    why: str = ""
    subject: str | None = None
    sandbox: str | None = None
    run_dir: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INTERNAL if self.outcome == ERROR else Verdict(self.outcome).exit_code


@dataclass
class Seeds:
    """A scenario's seeds, and the results of those that have run."""

    scenario: Scenario
    wanted: int
    done: list[Seed] = field(default_factory=list)
    exercised: Counter[str] = field(default_factory=Counter)
    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    armed: Counter[tuple[str, str]] = field(default_factory=Counter)
    pauses: int = 0
    sandboxes: int = 0
    seconds: float = 0.0
    _unjudged: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    _reasons: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def add(self, seed: int, run: Scenario, result: UnitResult) -> Seed:
        """Add a result. Its folder is removed if it held and the run has ended."""
        found = self._outcome(seed, result)
        if found.run_dir is None and result.run_dir is not None and not remove(result.run_dir):
            found = replace(found, run_dir=result.run_dir)
        self.done.append(found)
        self.pauses += len(result.settled)
        self.sandboxes += len(result.states)
        self.armed.update(_armed(run))
        fired = (each for _, each in result.each(events.FaultFired))
        self.fired.update((each.fault, fault_kind(each.kind, each.error) or each.error) for each in fired)
        for each in result.judged:
            if each.subject.startswith(INVARIANT):
                self.exercised[each.subject.removeprefix(INVARIANT)] += each.checked
            if each.verdict == Verdict.INCONCLUSIVE:
                self._count_unjudged(each)
        return found

    def _outcome(self, seed: int, result: UnitResult) -> Seed:
        if result.why_broken is not None:
            return Seed(seed, ERROR, result.why_broken, run_dir=result.run_dir)
        if result.verdict == Verdict.VIOLATED:
            return _failed(seed, result.violated[0], result)
        return Seed(seed, Verdict.HELD) if result.unproven is None else _failed(seed, result.unproven, result)

    def _count_unjudged(self, judged: events.Judged) -> None:
        place = (first_reason(judged).get(each) for each in ("file", "line", "column"))
        key = (judged.subject, *place)
        self._unjudged[key] += 1
        self._reasons.setdefault(key, why(judged))

    @property
    def failing(self) -> list[Seed]:
        """The seeds that did not hold, in their order."""
        return sorted((each for each in self.done if each.outcome != Verdict.HELD), key=lambda each: each.seed)

    @property
    def unexercised(self) -> list[tuple[str, str]]:
        """Subjects that no seed has shown to hold, and why: (subject, reason).

        If seeds draw their scenarios: invariants that no seed exercised; else subjects that every seed left
        inconclusive.
        """
        judged = [each for each in self.done if each.outcome != ERROR]
        if not judged:
            return []
        if self.scenario.swarm is not None:
            idle = [name for name, count in self.exercised.items() if count == 0]
            return [(INVARIANT + name, "no seed exercised it") for name in idle]
        everywhere = [key for key, count in self._unjudged.items() if count == len(judged) and key[0] not in CUT_OFF]
        return [(key[0], self._reasons[key]) for key in everywhere]

    @property
    def never_fired(self) -> list[tuple[str, str]]:
        """Faults, as (point, kind), that seeds armed and that never fired: reported, without effect on the verdict."""
        return [each for each in self.armed if not self.fired[each]]

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its seeds, and of the subjects that none of them showed."""
        codes = [each.exit_code for each in self.done]
        if self.unexercised:
            codes.append(ExitCode.INCONCLUSIVE)
        return worst(codes)


def run_seeds(seeds: Seeds, options: SeedOptions, pool: Pool, batch: Batch) -> None:
    """Run them; `seeds` is complete up to an interrupt too. Each failing seed is reported as it ends."""

    def take(key: tuple[int, Scenario], result: UnitResult) -> tuple[ExitCode, str]:
        found = seeds.add(*key, result)
        if found.exit_code is not ExitCode.HELD:
            batch.say(seed_line(found))
        return found.exit_code, f"seeds, {len(seeds.failing)} failing"

    runs = seed_runs(seeds.scenario, options.seeds, options.jobs)
    units = (((seed, run), _unit(run, seed, options)) for seed, run in runs)
    began = time.monotonic()
    try:
        batch.through(pool, seeds.scenario.name, units, seeds.wanted, take)
    finally:
        seeds.seconds += time.monotonic() - began


def run_scenarios(
    scenarios: Sequence[Scenario], options: SeedOptions, batch: Batch, cluster: str | None = None
) -> tuple[ExitCode, dict[str, Any]]:
    """Run the seeds of every scenario; the exit code and the `--json` document, up to an interrupt. `cluster`: see
    open_pool.
    """
    pool = open_pool(cluster, options.jobs, default_memory())
    documents: list[dict[str, Any]] = []
    found: list[Seeds] = []

    def run(scenario: Scenario) -> ExitCode:
        seeds = Seeds(scenario, len(options.seeds))
        try:
            run_seeds(seeds, options, pool, batch)
        finally:
            if seeds.done:
                documents.append(document(seeds))
                if batch.junit is not None:
                    batch.junit.add(junit(seeds))
                found.append(seeds)
            if not batch.quiet:
                batch.say(("\n" if seeds.failing else "") + summary(seeds) + "\n")
        return seeds.exit_code

    items = [Item(each.name, partial(run, each), partial(pool.lacks, each), each.path) for each in scenarios]
    code = batch.run(items, pool)
    if github.is_on():
        for line in github.commands(each for seeds in found for each in annotate(seeds)):
            click.echo(line, err=True)
        github.append_summary([markdown(Code(summary(each))) + "\n" for each in found])
    return code, {"version": VERSION, "exit_code": int(code), "scenarios": documents, **batch.left_out()}


def _unit(run: Scenario, seed: int, options: SeedOptions) -> Unit:
    unit = Unit.of(str(seed), run, options.runs_dir, seed=seed)
    return replace(unit, time_limit=options.time_limit, keep="failed", cache_dir=options.cache_dir)


def _failed(seed: int, judged: events.Judged, result: UnitResult) -> Seed:
    sandbox = first_reason(judged).get("sandbox", "*")
    named = None if sandbox == "*" else str(sandbox)
    return Seed(seed, judged.verdict, why(judged), judged.subject, named, result.run_dir)


def _armed(run: Scenario) -> Iterator[tuple[str, str]]:
    for step in run.steps:
        if isinstance(step, Inject):
            yield step.fault, step.harm.kind
        elif isinstance(step, Crash) and step.at is not None:
            yield step.at.fault, "kill-node"


def junit(seeds: Seeds) -> TestSuite:
    """A case for the seeds that held, with the time of all, one for each that did not, and one an invariant.

    An invariant that no seed exercised is skipped, or an error where the verdict depends on it.
    """
    suite = TestSuite(scrub(seeds.scenario.name))
    whole = TestCase(RUN, suite.name, round(seeds.seconds, 3))
    left, failing = seeds.wanted - len(seeds.done), seeds.failing
    whole.system_out = f"{len(seeds.done) - len(failing)} of {plural(seeds.wanted, 'seed')} held"
    if left:
        whole.result = [Error(f"{plural(left, 'seed')} not run", "Interrupted")]
    suite.add_testcase(whole)
    for each in failing:
        case = TestCase(f"seed {each.seed}", suite.name, 0.0)
        kind = Failure if each.outcome == Verdict.VIOLATED else Error
        case.result = [
            kind(scrub(f"{each.subject}: {each.why}" if each.subject else each.why), each.outcome.capitalize())
        ]
        case.result[0].text = scrub(seed_line(each))
        suite.add_testcase(case)
    owed = dict(seeds.unexercised)
    for name in get_args(Invariant):
        case = TestCase(name, suite.name, 0.0)
        broken = [each for each in failing if each.subject == INVARIANT + name and each.outcome == Verdict.VIOLATED]
        if broken:
            case.result = [
                Failure(f"violated by {plural(len(broken), 'seed')}, the first is {broken[0].seed}", "Violated")
            ]
        elif reason := owed.get(INVARIANT + name):
            case.result = [Error(scrub(reason), "Inconclusive")]
        elif not seeds.exercised[name]:
            case.result = [Skipped("not exercised: nothing that these runs did is checked by it")]
        suite.add_testcase(case)
    return suite


def annotate(seeds: Seeds) -> list[github.Annotation]:
    """One error for each seed that did not hold, and for each subject that none of them showed."""
    file, name = str(seeds.scenario.path), seeds.scenario.name
    found = [
        github.Annotation(
            "error",
            f"{name}: seed {each.seed} {each.outcome}",
            f"{each.subject or name}: {each.why}{_again(each)}",
            file,
        )
        for each in seeds.failing
    ]
    return found + [
        github.Annotation("error", f"{name}: {subject} inconclusive", reason, file)
        for subject, reason in seeds.unexercised
    ]


def _again(seed: Seed) -> str:
    if seed.run_dir is None:
        return ""
    return f"\nrun again: {shlex.join(['snapdrill', 'run', here(seed.run_dir / SCENARIO_FILE)])}"


VERSION = 1


def seed_line(seed: Seed) -> str:
    """One failing seed: subject, sandbox, reason, and the folder of its run and drawn scenario."""
    parts = [f"seed {seed.seed}", seed.outcome.upper(), seed.subject or "", seed.sandbox or ""]
    line = "  ".join(part for part in parts if part) + (f": {seed.why}" if seed.why else "")
    return line + (f"\n  {shlex.quote(here(seed.run_dir))}" if seed.run_dir else "")


def summary(seeds: Seeds) -> str:
    """The verdict over all seeds, how often each invariant was exercised, and the fired faults; no final newline."""
    return text([_head(seeds), _invariants(seeds), _faults(seeds), _unexercised(seeds), _next(seeds.failing)])


def _head(seeds: Seeds) -> Section:
    code = seeds.exit_code.name.replace("_", " ")
    counts = {outcome: sum(each.outcome == outcome for each in seeds.done) for outcome in (*Verdict, ERROR)}
    ended = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "held")
    left = seeds.wanted - len(seeds.done)
    done = (
        f"{ended}{f', {left} not run' if left else ''}; {plural(seeds.sandboxes, 'sandbox', 'sandboxes')}, "
        f"{plural(seeds.pauses, 'pause')} in {seeds.seconds:.1f} s"
    )
    kind = f"--guest {seeds.scenario.asked_guest}   " if seeds.scenario.asked_guest else ""
    title = f"{seeds.scenario.name}   {plural(len(seeds.done), 'seed')}   {kind}{code}"
    return Section("", (Paragraph(title), Paragraph(done)))


def _invariants(seeds: Seeds) -> Section:
    broken = {each.subject for each in seeds.failing if each.outcome == Verdict.VIOLATED}
    rows = []
    for name in get_args(Invariant):
        count = seeds.exercised[name]
        word = Verdict.VIOLATED if f"invariant:{name}" in broken else Verdict.HELD if count else NOT_EXERCISED
        tone: Tone = verdict_tone(word) if word != NOT_EXERCISED else "muted"
        rows.append((toned(word, tone), name, f"checked {plural(count, 'time')}" if count else ""))
    return Section("invariants, over all seeds", (Table((), rows),))


def _faults(seeds: Seeds) -> Section:
    """How often each fault fired, point by kind; a dash if the catalogue has no such fault."""
    if not seeds.armed and not seeds.fired:
        return Section("", ())
    rows = [
        (point, *(str(seeds.fired[point, kind]) if kind in spec.kinds else "-" for kind in KINDS))
        for point, spec in CATALOGUE.items()
    ]
    idle = ", ".join(f"{point} ({kind})" for point, kind in seeds.never_fired)
    never = Paragraph(f"armed, but never fired: {idle}" if idle else "")
    return Section("faults that fired", (Table(("", *KINDS), rows, "<>"), never))


def _unexercised(seeds: Seeds) -> Section:
    return Section("", tuple(Paragraph(f"INCONCLUSIVE {subject}: {reason}") for subject, reason in seeds.unexercised))


def _next(failing: Sequence[Seed]) -> Table:
    """Commands to try for the first failure."""
    run = next((each.run_dir for each in failing if each.run_dir is not None), None)
    folder = None if run is None else shlex.quote(here(run))
    return facts(
        [
            ("run again", folder and code(f"snapdrill run {folder}/scenario.yaml")),
            ("look at it", folder and code(f"snapdrill replay {folder}")),
            ("shrink it", folder and code(f"snapdrill shrink {folder}")),
        ]
    )


def document(seeds: Seeds) -> dict[str, Any]:
    """JSON-ready values."""
    fired = {point: {k: n for (p, k), n in seeds.fired.items() if p == point} for point in CATALOGUE}
    return {
        "name": seeds.scenario.name,
        "guest": seeds.scenario.asked_guest,
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
