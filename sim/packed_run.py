"""A run folder as bytes, for a run that was made on another host."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from sim.run_folder import claim


def pack(run_dir: Path) -> bytes:
    """The folder `.../<name>/<stamp>/` with these two names, compressed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(run_dir, f"{run_dir.parent.name}/{run_dir.name}")
    return packed.getvalue()


def unpack(packed: bytes, runs_dir: Path) -> Path:
    """Make it a run of `runs_dir`; gives its folder. Raises tarfile.TarError where it would leave that folder."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=runs_dir))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            archive.extractall(aside, filter="data")
        (run_dir,) = aside.glob("*/*")
        return claim(run_dir, runs_dir)
    finally:
        shutil.rmtree(aside)
