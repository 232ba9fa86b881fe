"""How many small changes of engine/ and sim/rules/ the tests notice: mutmut on a seeded sample of all changes.

`make mutants SAMPLE=200 SEED=1`. Each change is run against the tests that call the changed function; those that
survive are listed with their difference. tests/mutants_survivors.md names survivors that change nothing that can be
observed, each with its reason: they do not count. Exit code 1 where less than 90 % of the rest is noticed.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
KEPT = TESTS / "mutants_survivors.md"
ENOUGH = 0.90
NOTICED = {"killed", "timeout", "segfault", "suspicious", "caught by type check"}
FIRST = "engine.errors.*"  # few, so that the list of all is made quickly


def mutmut(*arguments: str, quiet: bool = False) -> str:
    """What it prints; it works in ./mutants, and imports the package as it is there."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    to = subprocess.PIPE if quiet else None
    made = subprocess.run(command, cwd=TESTS.parent, stdout=to, text=True, check=False, env={**os.environ, "CI": "1"})
    return made.stdout or ""


def statuses() -> dict[str, str]:
    """Every change by its name, with what became of it."""
    lines = (line.strip().rpartition(": ") for line in mutmut("results", "--all", "true", quiet=True).splitlines())
    return {name: status for name, colon, status in lines if colon}


def difference(name: str) -> tuple[str, str]:
    """The function and its changed lines, without line numbers: it stays the same while the function does."""
    shown = mutmut("show", name, quiet=True).splitlines()
    changed = [line[0] + " " + line[1:].strip() for line in shown if re.match(r"[+-](?![+-])", line)]
    return re.sub(r"__mutmut_\d+$", "", name), " / ".join(changed)


def only_words(difference: str) -> bool:
    """True where nothing but a sentence is changed: a text with spaces, which people read. Programs read codes."""
    removed, _, added = difference.partition(" / + ")
    return _without_sentences(removed.removeprefix("- ")) == _without_sentences(added)


def _without_sentences(line: str) -> str:
    return re.sub(r'(["\'])(?:(?!\1).)* (?:(?!\1).)*\1', "...", line)


def sample(names: list[str], size: int, seed: int) -> list[str]:
    """As many as there are, where that is fewer."""
    ordered = sorted(names)
    return sorted(random.Random(seed).sample(ordered, min(size, len(ordered))))


def main(size: int, seed: int, jobs: int) -> int:
    """Run the sample and print its score."""
    if not (names := list(statuses())):
        mutmut("run", "--max-children", str(jobs), FIRST)
        names = list(statuses())
    chosen = sample(names, size, seed)
    print(f"seed {seed}: {len(chosen)} of {len(names)} changes", flush=True)
    mutmut("run", "--max-children", str(jobs), *chosen)
    found = statuses()
    kept = KEPT.read_text() if KEPT.exists() else ""
    survivors = [(name, *difference(name)) for name in chosen if found[name] not in NOTICED]
    equal = [each for each in survivors if only_words(each[2]) or (each[2] in kept and each[1] in kept)]
    real = [each for each in survivors if each not in equal]
    for name, where, what in real:
        print(f"{found[name].upper()} {where}\n    {what}\n    mutmut show {name}")
    noticed, counted = len(chosen) - len(survivors), len(chosen) - len(equal)
    by_status = ", ".join(f"{count} {status}" for status, count in Counter(found[each] for each in chosen).items())
    print(f"{by_status}; {len(equal)} of them change words alone, or nothing that can be observed ({KEPT.name})")
    print(f"score: {noticed} of {counted} noticed, {noticed / max(1, counted):.1%}")
    return int(noticed < ENOUGH * counted)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
