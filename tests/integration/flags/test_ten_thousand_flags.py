"""A large flag file: what one change in it costs, next to reading it."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from flags.context import SandboxAttributes
from flags.file import FileFlags
from flags.inline import Rollout, flag_from

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def cpu(act: Callable[[], object]) -> float:
    """Processor seconds: on a busy machine the clock says little."""
    gc.collect()
    began = time.process_time()
    act()
    return time.process_time() - began


def test_from_change_to_obeyed_takes_at_most_three_times_as_long_as_reading_the_file(tmp_path: Path) -> None:
    values = [f"6.{number}.0" for number in range(30)]
    clause = {"contextKind": "sandbox", "attribute": "kernel-version", "op": "in", "values": values}
    rules = [{"id": "old", "variation": 0, "clauses": [clause]}]
    rolled = {**flag_from(PUNCH, Rollout(50, "sandbox")), "rules": rules}
    flags = {f"other-{number}": {**rolled, "key": f"other-{number}"} for number in range(10_000)}
    path = tmp_path / "flags.json"
    reading, obeying = [], []

    def write(on: bool) -> None:
        path.write_text(json.dumps({"flags": {**flags, PUNCH: {**flag_from(PUNCH, True), "on": on}}}))

    write(True)
    with closing(FileFlags(path, poll=3600.0)) as followed:
        assert followed.decide(WEB).is_on(PUNCH)
        for number in range(6):
            write(number % 2 == 1)
            reading.append(cpu(lambda: json.loads(path.read_bytes())))
            obeying.append(cpu(lambda: (followed.refresh(), followed.decide(WEB))))
            assert followed.decide(WEB).is_on(PUNCH) is (number % 2 == 1)
    assert min(obeying) <= 3 * min(reading)
