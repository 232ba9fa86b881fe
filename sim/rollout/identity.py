"""What was rehearsed, so that it can be rehearsed again: files and their hashes, flag, seed, host; the command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from engine.reading import MOST_TABLE_BYTES, read_regular
from flags.inline import Rollout, flag_from
from sim.files.flag_values import FlagFile
from sim.files.plan import Plan
from sim.files.yaml import dotted
from sim.record.folder import StoredRun
from sim.report.html import host_words
from sim.report.table import Bullets, Code, Section, Words, code
from sim.rollout.results import Rehearsal


def named_files(plan: Plan) -> list[tuple[str, Path]]:
    """The fleet file and the flag file of a plan: as it names them, and where they are."""
    names = [plan.fleet_file, plan.flags.file if isinstance(plan.flags, FlagFile) else None]
    return [(name, plan.path.parent / name) for name in names if name is not None]


def beside(named: str) -> Path:
    """Where a named file lies in the folder of evidence: beside the plan, under its own name."""
    return Path(Path(named).name)


def flag_hash(found: Rehearsal, weight: float) -> str:
    """SHA-256 of the flag at a weight in LaunchDarkly's JSON form, keys sorted."""
    flag = flag_from(found.plan.flag, Rollout(weight, found.plan.by))
    return hashlib.sha256(json.dumps(flag, sort_keys=True).encode()).hexdigest()


def seed_of(found: Rehearsal) -> int:
    """The seed that both runs had."""
    return found.on.view.run.seed if found.on.view.run else found.plan.seed


def lease_words(plan: Plan) -> str:
    """`none`, `1.5 s`."""
    return "none" if plan.lease is None else f"{plan.lease:g} s"


def reproduce(found: Rehearsal) -> str:
    """The command, with the plan that lies beside the first page."""
    goes_on = "" if found.continues is None else f" --continue {found.continues}"
    return f"snapdrill rehearse plan.yaml --seed {seed_of(found)} {asked(found.plan)}{goes_on}"


def asked(plan: Plan) -> str:
    """What the command line made of the plan, as options."""
    lease = lease_words(plan).replace(" ", "")
    guest = "" if plan.asked_guest is None else f" --guest {plan.asked_guest}"
    written = (plan.document.data.get("engine") or {}).get("mended", ())
    mended = "".join(f" --mend {each}" for each in plan.engine.mended if each not in written)
    third = " --salvage-arm" if plan.salvage_arm and not plan.document.data.get("salvageArm") else ""
    return f"--lease {lease}{guest}{mended}{third}"


def identity(found: Rehearsal) -> list[Section]:
    """What this is of, and how to have it again."""
    return [
        Section("What this is of", (Bullets(list(_identity(found))),)),
        Section("Reproduce", (Code(reproduce(found)),)),
    ]


def _identity(found: Rehearsal) -> Iterator[Words]:
    run, plan = found.on.view.run, found.plan
    text = hashlib.sha256(plan.source_text.encode()).hexdigest()
    version = run.snapdrill if run else "unknown"
    yield "plan ", code(plan.name), ", SHA-256 ", code(text[:16]), f"; snapdrill {version}"
    for place, value, query in plan.document.asked:
        yield f"{dotted(place)} {value}, from Prometheus when the file was read: ", code(query)
    for named, path in named_files(plan):
        digest = hashlib.sha256(read_regular(path, MOST_TABLE_BYTES)).hexdigest()[:16]
        where = () if beside(named) == Path(named) else ("; the plan looks for it as ", code(named))
        yield "file ", code(str(beside(named))), ", SHA-256 ", code(digest), *where
    yield "flag ", code(plan.flag), f" by {plan.by}, served by {plan.flag_source}; lease {lease_words(plan)}"
    for stage in found.stages:
        weight = stage.stage.weight
        yield f"flag at {weight:g} %: SHA-256 ", code(flag_hash(found, weight)[:16])
    if plan.asked_guest is not None:
        yield f"every sandbox with guest: {plan.asked_guest}, as the command line says"
    yield f"seed {seed_of(found)}; host: {host_words(run.host) if run else 'unknown'}"
    third = () if found.three is None else (", ", code(_digest(found.three.run)), " with the flag and salvage")
    yield "digests: ", code(_digest(found.on)), " with the flag, ", code(_digest(found.off)), " without", *third
    yield (
        "void with another plan, flag (its salt, its key and the order of its variations draw the cohort), SDK, engine"
        " or kernel than these"
    )


def _digest(run: StoredRun) -> str:
    ended = run.view.ended
    return (ended.digest or "none claimed")[:16] if ended else "none"
