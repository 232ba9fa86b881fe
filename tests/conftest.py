"""The order of the tests, and what make test measures: branches that engine/ and sim/rules/ take in their own tests."""

import gc
import os
import pathlib
from collections.abc import Iterator

import hypothesis
import pytest

from engine import linux

MEASURED = ("model", "integration/engine", "unit/engine", "unit/sim/rules")
"""Tracing makes a test up to three times slower; what other tests happen to run on their way proves little of it."""

gc.disable()  # while thousands of tests are collected, none of which is garbage: a third of the time


if "MUTANT_UNDER_TEST" in os.environ:  # mutmut's: a test that is slow under it, or by chance, has noticed nothing
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # else a worker is left alone with a long one
    tests = pathlib.Path(__file__).parent
    for item in items:
        if not item.path.relative_to(tests).as_posix().startswith(MEASURED):
            item.add_marker(pytest.mark.no_cover)


def pytest_collection_finish() -> None:
    """The collector no longer looks at what all tests share."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def huge_folder() -> Iterator[pathlib.Path]:
    """On a tmpfs that is mounted nowhere."""
    try:
        fd = linux.detached_tmpfs({"huge": "within_size"})
    except OSError as error:
        pytest.skip(f"no tmpfs of its own: {error.strerror}")
    yield pathlib.Path(f"/proc/self/fd/{fd}")
    os.close(fd)
