"""Verdicts, exit codes, and the one code that several files end with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.record.verdict import ExitCode, Verdict, worst

CODES = st.lists(st.sampled_from(ExitCode), min_size=1)


def test_a_verdict_has_the_exit_code_of_its_name() -> None:
    assert [verdict.exit_code for verdict in Verdict] == [0, 1, 3]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 3], ExitCode.INCONCLUSIVE),
        ([3, 1, 0], ExitCode.VIOLATED),
        ([1, 70], ExitCode.INTERNAL),
        ([70, 2], ExitCode.USAGE),
        ([2, 143], ExitCode.TERMINATED),
        ([143, 130], ExitCode.INTERRUPTED),
    ],
)
def test_several_files_end_with_the_worst_code(codes: list[int], expected: ExitCode) -> None:
    assert worst(codes) is expected


def test_skips_count_only_when_every_file_was_skipped() -> None:
    assert worst([4, 4]) is ExitCode.UNSUPPORTED
    assert worst([4, 0]) is ExitCode.HELD
    assert worst([4, 3]) is ExitCode.INCONCLUSIVE


def test_an_empty_selection_counts_only_when_nothing_else_was_there() -> None:
    assert worst([]) is ExitCode.NOTHING_SELECTED
    assert worst([5, 5]) is ExitCode.NOTHING_SELECTED
    assert worst([5, 0]) is ExitCode.HELD
    assert worst([5, 4]) is ExitCode.UNSUPPORTED


def test_a_number_that_is_no_exit_code_is_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        worst([0, 99])


@given(CODES, CODES)
def test_the_worst_code_does_not_depend_on_how_the_files_are_grouped(
    left: list[ExitCode], right: list[ExitCode]
) -> None:
    assert worst([*left, *right]) is worst([worst(right), worst(left)])
