"""Both halves of each rule: a ledger in which it is broken is judged again, with all of it having happened twice.

`snapdrill check` must name both sandboxes; with a rule that sees every second violation only, it must miss one,
whichever half that is. The ledgers are those that other wrong drills have left: nothing is run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.run.wrong_drills import VARIABLE

_AGAIN = "-again"
_MOST = 120.0  # seconds for all the checks of one drill
_CHECKS = """
import os, sys
from sim.cli import main
for file in sys.argv[1:]:
    main(["check", "--trace", file, "--json"])
    os.environ.pop("SNAPDRILL_WRONG_DRILL", None)  # from now on it is this process
"""


def doubled(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each line of a ledger; one of a sandbox is followed by the same of another, whose name ends with `-again`."""
    found = []
    for line in lines:
        text = json.dumps(line)
        found.append(text)
        if sandbox := line.get("sandbox"):
            for end in ('"', "."):  # of the name itself, and of its guests and pauses
                text = text.replace(f'"{sandbox}{end}', f'"{sandbox}{_AGAIN}{end}')
            found.append(text)
    return found


def named_by(switch: str, ledgers: Mapping[str, Path]) -> dict[str, set[str]]:
    """Of each rule with a ledger: the sandboxes that `check` names there, by the drill of this name (empty: the right
    one). Raises ValueError or KeyError where it does not answer."""
    environment = {**os.environ, VARIABLE: f"{switch}:{os.getpid()}"} if switch else dict(os.environ)
    command = [sys.executable, "-c", _CHECKS, *map(str, ledgers.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST, check=False, env=environment)
    documents = _documents(done.stdout)
    if len(documents) != len(ledgers):
        raise ValueError(f"`check` answered {len(documents)} times of {len(ledgers)}: {done.stderr[-500:]}")
    return {rule: _named(document, rule) for rule, document in zip(ledgers, documents, strict=True)}


def _documents(printed: str) -> list[dict[str, Any]]:
    found, decoder, rest = [], json.JSONDecoder(), printed.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


def _named(document: Mapping[str, Any], rule: str) -> set[str]:
    (judged,) = [each["ledger"] for each in document["invariants"] if each["name"] == rule]
    notes = judged["violations"] if "violations" in judged else judged["missing"]
    return {str(each["sandbox"]) for each in notes} - {"*"}


def survives(right: set[str], halves: Sequence[set[str]]) -> str:
    """Why a rule that is blinded by half is not noticed; empty where each half misses a sandbox that must be named."""
    if not any(each.endswith(_AGAIN) for each in right) or len(right) < 2:
        return f"the right `check` names {', '.join(sorted(right)) or 'nothing'}, not a sandbox and its double"
    if any(half >= right for half in halves):
        return "`check` by half of the rule names all the same"
    return ""
