from __future__ import annotations

from typing import Any

import pytest

from sim.files.metrics import MEASURES, parse_condition
from sim.files.plan import Metric
from sim.rollout.analysis import Arms, Measurement, MetricOutcome, concluded, judge, measure, pairs
from sim.rollout.stretch import Figures, PauseCost, Pools

BUDGET = 100


def metric(name: str = "discards", **asked: Any) -> Metric:
    return Metric.model_validate({"name": name, **asked}, context={})


def arms(on: Figures, off: Figures | None = None) -> Arms:
    return Arms(on, off or Figures(), BUDGET)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("result >= 0.99", 0.99, True),
        ("result >= 0.99", 0.98, False),
        ("result<3", 3.0, False),
        ("result != 0", 1.0, True),
        ("result == -1", -1.0, True),
    ],
)
def test_a_condition_compares_the_result(text: str, value: float, holds: bool) -> None:
    assert parse_condition(text).holds(value) is holds


@pytest.mark.parametrize("text", ["0.99", "result", "result >= x", "result > 1 and result < 2", "__import__('os')", 3])
def test_what_is_no_comparison_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a comparison"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(1.0, MetricOutcome.SUCCESSFUL), (0.9, MetricOutcome.FAILED), (0.97, MetricOutcome.INCONCLUSIVE)],
)
def test_what_meets_neither_condition_is_inconclusive(value: float, outcome: MetricOutcome) -> None:
    asked = metric(successCondition="result >= 0.99", failureCondition="result < 0.95")
    assert judge(asked, value) is outcome


def results(*outcomes: MetricOutcome) -> list[Measurement]:
    return [Measurement(None if each is MetricOutcome.ERROR else 1.0, each) for each in outcomes]


F, S, E, I = MetricOutcome.FAILED, MetricOutcome.SUCCESSFUL, MetricOutcome.ERROR, MetricOutcome.INCONCLUSIVE  # noqa: E741 - one letter each


@pytest.mark.parametrize(
    ("limits", "measured", "outcome"),
    [
        ({}, [S, S], S),
        ({}, [F, S], F),
        ({"failureLimit": 1}, [F, S], S),
        ({"failureLimit": 1}, [F, F], F),
        ({"failureLimit": -1}, [F, F, F], S),
        ({"inconclusiveLimit": 1}, [I, S], S),
        ({}, [I], I),
        ({"consecutiveErrorLimit": 1}, [S, E, E, S], E),
        ({"consecutiveErrorLimit": 1}, [E, S, E], S),
        ({}, [E], E),
        ({}, [F, I], F),
    ],
)
def test_limits_say_how_much_is_borne(
    limits: dict[str, Any], measured: list[MetricOutcome], outcome: MetricOutcome
) -> None:
    asked = metric(failureCondition="result > 0", **limits)
    assert concluded(asked, results(*measured)).outcome is outcome


def test_every_known_measure_can_be_measured() -> None:
    twice, once = (
        [PauseCost(f"s{n % 20}", n // 20, n + late, on, on, ms, ms, peak, ms) for n in range(120)]
        for on, late, ms, peak in ((True, 0.0, 2.0, 1), (False, 0.5, 1.0, 3))
    )
    compared = tuple(pairs(twice, once))
    on = Figures(asked=4, finished=3, decided_on=2, costs=(twice[0],))
    off = Figures(asked=4, finished=4, costs=(once[0],))
    both = Arms(on, off, BUDGET, pairs=compared)
    found = {name: measure(metric(name, successCondition="result >= 0"), both).value for name in MEASURES}
    assert {name for name, value in found.items() if value is None} == set()
    assert (found["pause_success_rate"], found["copy_p50_ratio"], found["bytes_saved"]) == (0.75, 2.0, 2.0)


def test_lost_because_of_the_flag_leaves_out_who_is_lost_without_it() -> None:
    asked = metric("lost_because_of_the_flag", failureCondition="result > 0")
    on, off = Figures(lost=("web-1", "web-2")), Figures(lost=("web-2",))
    assert measure(asked, arms(on, off)).value == 1.0


def test_nothing_to_measure_is_an_error_and_no_success() -> None:
    asked = metric("pause_success_rate", successCondition="result >= 0.99")
    assert measure(asked, arms(Figures())).outcome is MetricOutcome.ERROR


def test_the_budget_is_compared_with_the_peak_of_both_pools() -> None:
    asked = metric("budget_used", successCondition="result <= 1")
    assert measure(asked, arms(Figures(pools=Pools(hugetlb=60, pages=60, both=120)))).outcome is MetricOutcome.FAILED
