"""What an error is, by its number and its causes."""

from __future__ import annotations

import errno

import pytest

from engine.errors import (
    HOST_ERRORS,
    CorruptBuildError,
    HostError,
    behind,
    errno_name,
    host_error,
    is_of_host,
    words_of,
)


@pytest.mark.parametrize(
    ("error", "name"),
    [(OSError(errno.ENOSPC, "full"), "ENOSPC"), (OSError(99999, "odd"), "99999"), (OSError("none"), None),
     (ValueError("x"), None)],
)  # fmt: skip
def test_an_error_of_the_kernel_has_the_name_of_its_number(error: BaseException, name: str | None) -> None:
    assert errno_name(error) == name


@pytest.mark.parametrize("name", sorted(HOST_ERRORS))
def test_the_hosts_error_is_found_behind_those_that_it_caused(name: str) -> None:
    full = OSError(getattr(errno, name), "words")
    cause, context, both = ValueError("x"), ValueError("y"), ValueError("z")
    cause.__cause__, context.__context__ = full, cause
    both.__cause__, both.__context__ = ValueError("no"), full
    assert [host_error(each) for each in (full, cause, context)] == [full] * 3
    assert host_error(both) is None


@pytest.mark.parametrize(
    "error", [KeyError("x"), AttributeError("x"), ZeroDivisionError(), AssertionError(), NameError()]
)
def test_a_defect_in_the_handling_of_the_hosts_error_is_not_the_hosts(error: Exception) -> None:
    full = OSError(errno.ENOSPC, "full")
    error.__context__ = full
    assert list(behind(error)) == [error]
    assert host_error(error) is None
    error.__cause__ = full
    assert host_error(error) is full


def test_an_error_itself_is_the_hosts_or_not_whatever_is_behind_it() -> None:
    gone, full = OSError(errno.ENOENT, "gone"), OSError(errno.ENOSPC, "full")
    gone.__context__ = full
    assert (is_of_host(gone), is_of_host(full), host_error(gone)) == (False, True, full)


@pytest.mark.parametrize("error", [MemoryError(), HostError("no kvm")])
def test_no_memory_and_what_a_run_needs_are_the_hosts_too(error: Exception) -> None:
    assert host_error(error) is error


def test_no_error_and_those_of_files_and_engine_are_not_the_hosts() -> None:
    for error in (None, OSError(errno.ENOENT, "gone"), CorruptBuildError("b1", " is damaged")):
        assert host_error(error) is None
    assert CorruptBuildError("b1", " is damaged").build == "b1"


def test_an_error_without_a_message_has_the_name_of_its_type() -> None:
    assert [words_of(each) for each in (KeyboardInterrupt(), OSError(), ValueError("x"), OSError(5, "y"))] == [
        "KeyboardInterrupt", "OSError", "x", "[Errno 5] y",
    ]  # fmt: skip
