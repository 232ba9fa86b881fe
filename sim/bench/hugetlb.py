"""The pool of 2 MiB pages: raised for a bench where that is allowed, and put back."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from engine.errors import errno_name
from sim.units import HUGE_PAGE

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@contextlib.contextmanager
def pool_of(size: int, pool: Path = POOL) -> Iterator[str | None]:
    """Have `size` bytes of free 2 MiB pages inside; yields None, or why there are not so many.

    Whoever else changes the pool under the same lock (flock(2) on nr_hugepages) waits meanwhile.
    """
    try:
        file = (pool / "nr_hugepages").open(encoding="ascii")
    except OSError as error:
        yield f"no pool of 2 MiB pages: {errno_name(error)}"
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        total, free, wanted = _read(pool, "nr_hugepages"), _read(pool, "free_hugepages"), -(-size // HUGE_PAGE)
        if free >= wanted:
            yield None
            return
        try:
            yield _raise(pool, total + wanted - free, wanted)
        finally:
            with contextlib.suppress(OSError):  # it was never raised
                (pool / "nr_hugepages").write_text(str(total))


def _raise(pool: Path, total: int, wanted: int) -> str | None:
    try:
        (pool / "nr_hugepages").write_text(str(total))
    except OSError as error:
        return f"{wanted} pages of 2 MiB are not free, and the pool cannot be raised: {errno_name(error)}"
    free = _read(pool, "free_hugepages")
    return None if free >= wanted else f"the kernel found {free} of {wanted} pages of 2 MiB"


def _read(pool: Path, name: str) -> int:
    return int((pool / name).read_text())
