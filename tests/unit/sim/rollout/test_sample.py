from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.fleet_file import Floats
from sim.rollout.bounds import Stratum
from sim.rollout.sample import sample, shares, strata_of

FIRST = np.array([0] * 10 + [1] * 90 + [2] * 400 + [-1] * 500)
TEMPLATE = np.arange(1000) % 5
MEMORY: Floats = (np.arange(1000) * 7919 % 1000 + 1.0).astype(np.float64) * 2**20


def test_small_strata_have_a_fair_part_and_large_ones_the_rest() -> None:
    assert shares([10, 90, 400, 500], 120) == shares([10, 90, 400, 500], 120)
    dealt = shares([10, 90, 400, 500], 120)
    assert sum(dealt) == 120
    assert dealt[0] == 7
    assert dealt[1] >= 7
    assert dealt[3] > dealt[2] > dealt[1]


def test_every_stage_exposes_somebody_of_the_sample_and_weights_sum_to_the_fleet() -> None:
    found = sample(FIRST, TEMPLATE, MEMORY, 120, seed=3)
    assert len(found.rows) == len(set(found.rows.tolist())) == 120
    assert [found.exposed(stage) > 0 for stage in range(3)] == [True] * 3
    assert found.exposed(0) == 7
    assert found.weights.sum() == pytest.approx(1000)
    for stage in (-1, 0, 1, 2):
        assert found.weights[found.strata == stage].sum() == pytest.approx(int(np.count_nonzero(stage == FIRST)))


def test_within_a_stratum_templates_and_sizes_are_gone_through_evenly() -> None:
    found = sample(FIRST, TEMPLATE, MEMORY, 120, seed=3)
    mine = found.rows[found.strata == 2]
    counts = np.bincount(TEMPLATE[mine], minlength=5)
    assert counts.max() - counts.min() <= 1
    weights = found.weights[found.strata == 2]
    assert float((MEMORY[mine] * weights).sum()) == pytest.approx(MEMORY[FIRST == 2].sum(), rel=0.05)


def test_the_same_seed_draws_the_same_sample_and_another_one_another() -> None:
    one, again, other = (sample(FIRST, TEMPLATE, MEMORY, 60, seed).rows.tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_a_sample_as_large_as_the_fleet_is_the_fleet() -> None:
    found = sample(FIRST, TEMPLATE, MEMORY, 5000, seed=1)
    assert found.rows.tolist() == list(range(1000))
    assert set(found.weights.tolist()) == {1.0}


def test_strata_for_a_bound_are_of_the_exposed_alone() -> None:
    found = sample(FIRST, TEMPLATE, MEMORY, 120, seed=3)
    lost = found.rows[found.strata == 1][:1]
    one, two = strata_of(found, FIRST, 1, lost)
    assert one == Stratum(0.1, 7, 0)
    assert (two.share, two.lost) == (0.9, 1)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=7), st.integers(1, 400))
def test_shares_are_whole_and_no_more_than_there_are(counts: list[int], size: int) -> None:
    dealt = shares(counts, size)
    assert sum(dealt) == min(size, sum(counts))
    assert all(0 <= mine <= there for mine, there in zip(dealt, counts, strict=True))
    if size >= len(counts):
        assert min(dealt) >= 1
