"""The order of the tests, and what make test measures: branches that engine/ and sim/rules/ take in their own tests."""

import gc
import importlib
import os
import pathlib
import pkgutil
import signal
from collections.abc import Generator, Iterator

import coverage
import hypothesis
import pytest

import engine
import sim.rules
from engine import linux

TESTS = pathlib.Path(__file__).parent
MEASURING = pytest.StashKey[coverage.Coverage]()

MEASURED = ("model", "integration/engine", "unit/engine", "unit/sim/rules")
"""Tracing makes a test up to three times slower; what other tests happen to run on their way proves little of it."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # `make test &` in a script: what is tested would obey it
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # while thousands of tests are collected, none of which is garbage: a third of the time


if "MUTANT_UNDER_TEST" in os.environ:  # mutmut's: a test that is slow under it, or by chance, has noticed nothing
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # else a worker is left alone with a long one


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Loaded is all that is measured, and then nothing is traced until a measured test runs: collecting costs half."""
    if (measuring := coverage.Coverage.current()) is None:
        return
    for package in (engine, sim.rules):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    session.stash[MEASURING] = measuring
    while (other := coverage.Coverage.current()) is not None:  # a worker of pytest-xdist has two
        other.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Traced with its fixtures, or not at all."""
    measuring = item.session.stash.get(MEASURING, None)
    if measuring is None or not item.path.relative_to(TESTS).as_posix().startswith(MEASURED):
        return (yield)
    measuring.start()
    try:
        return (yield)
    finally:
        measuring.stop()


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
