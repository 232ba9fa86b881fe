from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import linux


@pytest.fixture
def huge_folder() -> Iterator[Path]:
    """On a tmpfs that is mounted nowhere."""
    try:
        fd = linux.detached_tmpfs({"huge": "within_size"})
    except OSError as error:
        pytest.skip(f"no tmpfs of its own: {error.strerror}")
    yield Path(f"/proc/self/fd/{fd}")
    os.close(fd)
