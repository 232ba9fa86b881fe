"""The flag of a user on the fleet of a user: figures that LaunchDarkly's client gave for every row."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from engine.errors import UserError
from flags.catalog import FLAGS
from flags.edit import Place, with_share
from flags.launchdarkly import Evaluator, InProcessSource, make_context
from sim.rollout.row_exposure import (
    NEVER,
    Rows,
    StageExposure,
    first_stages,
    numbered,
    stage_exposures,
    sums,
)
from tests.production_fleet import KEY, Sandbox, flags, production_fleet

GIB = 2**30
WEIGHTS = (0, 1, 5, 25, 50, 100)
SOME = (0, 1, 25)
"""Where the same rows were asked at all six weights already."""
MANY = ("sandbox", "team", "template", "cluster")


@pytest.fixture(scope="module")
def fleet() -> list[Sandbox]:
    return production_fleet()


@pytest.fixture(scope="module")
def rows(fleet: list[Sandbox]) -> Rows:
    memory = np.array([each.memory_mib * 2.0**20 for each in fleet])
    return Rows(
        memory=memory,
        dirty=memory * np.array([each.dirty for each in fleet]),
        pauses_per_hour=np.array([each.pauses_per_hour for each in fleet]),
        team=numbered([each.team for each in fleet]),
        node=numbered([each.node for each in fleet]),
        cluster=numbered([each.cluster for each in fleet]),
    )


@pytest.fixture(scope="module")
def many(fleet: list[Sandbox]) -> list[Any]:
    """Contexts of every row."""
    return contexts(fleet, MANY)


@pytest.fixture(scope="module")
def alone(fleet: list[Sandbox]) -> list[Any]:
    """Contexts of every row that name the sandbox alone."""
    return contexts(fleet, ("sandbox",))


def contexts(fleet: list[Sandbox], kinds: tuple[str, ...]) -> list[Any]:
    return [make_context({"kind": "multi", **{kind: {"key": getattr(each, kind)} for kind in kinds}}) for each in fleet]


def staged(document: dict[str, Any], weights: tuple[float, ...]) -> list[tuple[float, tuple[Any, Any]]]:
    mine = document["flags"][KEY]
    return [
        (each, ({**document["flags"], KEY: with_share(mine, True, each, Place())}, document["segments"]))
        for each in weights
    ]


def exposed(asked: list[Any], weights: tuple[float, ...] = WEIGHTS, **how: bool) -> Any:
    return stage_exposures(staged(flags(**how), weights), FLAGS[KEY], asked)


def test_the_fleet_is_as_large_as_its_table_says(rows: Rows) -> None:
    whole = sums(rows)
    assert (whole.sandboxes, whole.teams, whole.nodes, whole.clusters) == (40_000, 601, 1008, 12)
    assert round(whole.memory / GIB, 1) == 50_310.1
    assert round(whole.dirty / GIB, 1) == 30_131.9
    assert round(whole.pauses_per_hour, 1) == 25_221.1


def test_every_stage_exposes_who_launchdarklys_client_exposes(many: list[Any], rows: Rows) -> None:
    found = exposed(many, safe_first=True)
    assert [each.count for each in found] == [477, 830, 2327, 9673, 18_855, 37_289]
    gib = [round(sums(rows, each.on).memory / GIB, 1) for each in found]
    assert gib == [495.4, 980.8, 2901.6, 12_221.6, 23_857.2, 47_281.3]
    assert [one.left(before) for before, one in pairwise(found)] == [0] * 5
    assert found[0].reasons == {"rule 8a52a8b4-0002": 477}
    assert found[1].reasons == {"rule 8a52a8b4-0002": 477, "default rule": 353}
    assert found[5].failures == {}


def test_a_context_of_the_sandbox_alone_is_exposed_otherwise(alone: list[Any], rows: Rows) -> None:
    found = exposed(alone, (1, 5, 100), safe_first=True)
    assert [each.count for each in found] == [393, 1998, 39_999]
    gib = [round(sums(rows, each.on).memory / GIB, 1) for each in found]
    assert gib == [528.4, 2578.1, 50_309.4]


@pytest.mark.parametrize(
    ("asked", "counts"),
    [("many", [515, 883, 9808]), ("alone", [0, 398, 10_126])],
    ids=["many-kinds", "sandbox-alone"],
)
def test_the_flag_as_it_is_served_lists_punching_first_and_exposes_others(
    request: pytest.FixtureRequest, asked: str, counts: list[int]
) -> None:
    assert [each.count for each in exposed(request.getfixturevalue(asked), SOME)] == counts


def test_a_fleet_is_evaluated_as_a_client_evaluates_it() -> None:
    few = production_fleet(300)
    document = flags()
    client = Evaluator(InProcessSource(*staged(document, (50,))[0][1]))
    try:
        expected = [client.evaluate(FLAGS[KEY], each).value for each in contexts(few, MANY)]
    finally:
        client.close()
    (found,) = exposed(contexts(few, MANY), (50,))
    assert found.on.tolist() == expected
    assert 0 < found.count < 300


def test_a_prerequisite_that_fails_and_a_missing_flag_are_counted(fleet: list[Sandbox]) -> None:
    few, document = fleet[:50], flags()
    document["flags"]["punch-allowed"]["on"] = False
    (found,) = stage_exposures(staged(document, (50,)), FLAGS[KEY], contexts(few, MANY))
    assert (found.count, found.failures) == (0, {"PREREQUISITE_FAILED": 50})
    (gone,) = stage_exposures([(1, ({}, {}))], FLAGS[KEY], contexts(few, MANY))
    assert (gone.count, gone.failures) == (0, {"ERROR:FLAG_NOT_FOUND": 50})


def test_the_first_stage_of_a_row_is_the_first_that_exposes_it() -> None:
    on = [[False, True, False, False], [False, True, True, False], [False, False, True, True]]
    stages = [StageExposure(at, np.array(each), {}, {}) for at, each in enumerate(on)]
    assert first_stages(stages).tolist() == [NEVER, 0, 1, 2]
    assert [two.left(one) for one, two in pairwise(stages)] == [0, 1]


def test_progress_is_reported_from_the_first_stage_to_the_last(fleet: list[Sandbox]) -> None:
    seen: list[float] = []
    stage_exposures(staged(flags(), (1, 5)), FLAGS[KEY], contexts(fleet[:10], MANY), seen.append)
    assert seen == [0.0, 0.5]


def test_a_value_that_names_no_variation_is_no_edit() -> None:
    with pytest.raises(UserError, match="has no variation"):
        with_share({**flags()["flags"][KEY], "variations": ["a", "b"]}, True, 5, Place())
