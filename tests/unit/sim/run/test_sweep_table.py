from __future__ import annotations

from sim.files.faults import CATALOGUE
from sim.report.table import text
from sim.run.sweep import OUTCOMES, Case, CaseResult, Point
from sim.run.sweep_report import SHORT, counts, legend, table


def results(*told: tuple[str, str, str, int]) -> list[CaseResult]:
    return [
        CaseResult(Case(Point("web-0", point, None, 1, 1), kind), outcome, 0.1)  # type: ignore[arg-type]
        for point, kind, outcome, number in told
        for _ in range(number)
    ]


def test_a_table_counts_outcomes_by_point_and_kind() -> None:
    told = results(
        ("punch", "errno", "finished", 2),
        ("copy.write", "kill-node", "discarded", 12),
        ("copy.write", "kill-node", "rolled back", 3),
        ("copy.write", "errno", "violated", 1),
    )
    assert text([table(counts(told)), legend(counts(told))]) == (
        "            errno   kill-node\n"
        "copy.write  1 VIOL   3 back\n"
        "                    12 disc\n"
        "punch       2 done\n"
        "\n"
        "done finished · back rolled back · disc discarded · VIOL violated"
    )


def test_a_table_of_everything_fits_into_a_hundred_columns_and_into_eighty() -> None:
    told = results(
        *((p, kind, out, 130) for p, spec in CATALOGUE.items() for kind in spec.kinds for out in ("finished", "paused"))
    )
    for width in (100, 80):
        drawn = text([table(counts(told)), legend(counts(told))], width=width)
        assert max(map(len, drawn.splitlines())) <= width
        assert all(drawn.count(point) >= 1 for point in CATALOGUE)
        assert drawn.count("130 done") == sum(len(spec.kinds) for spec in CATALOGUE.values())


def test_nothing_is_drawn_of_nothing() -> None:
    assert text([table(counts([])), legend(counts([]))]) == ""


def test_every_outcome_has_a_short_word_of_its_own() -> None:
    assert set(SHORT) == set(OUTCOMES)
    assert len(set(SHORT.values())) == len(SHORT)


def test_counts_leave_out_what_did_not_happen() -> None:
    assert counts(results(("scan", "delay", "finished", 4))) == {"scan": {"delay": {"finished": 4}}}
