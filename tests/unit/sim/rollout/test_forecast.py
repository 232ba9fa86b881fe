"""What a forecast answers, and that the same question has the same answer."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from engine.errors import UserError
from flags.catalog import PUNCH
from flags.cohort import Member, cohort
from flags.context import ALL, SandboxAttributes
from flags.inline import Rollout, flag_from
from flags.launchdarkly_fleet import bucket_of
from sim.files.fleet_file import Fleet, PausesPerHour, load, load_text
from sim.files.plan import load_plan
from sim.report.table import text
from sim.rollout.agreement import Agreement, Row, failures
from sim.rollout.costs import Costs
from sim.rollout.forecast import Answer, Forecast, ForecastQuestion, forecast
from sim.rollout.forecast_source import ForecastSource, source
from sim.rollout.simulation import DAY, rate
from sim.rollout.virtual_fleet import virtual_fleet

SHIPPED = pathlib.Path(__file__).parents[4] / "scenarios"
EXAMPLE = load(SHIPPED / "fleets" / "example.yaml")
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ASKED = ForecastQuestion(sandboxes=800, weights=(0, 10, 50, 100), hours=6, failure_rate=1e-3)
SMALL = """kind: fleet
name: small
node: {memory: 1GiB, sandboxes: 10}
groups:
  - {name: web, count: 400, memory: 64MiB, dirty: 100%, pauses_per_hour: {median: 4}}
"""


def small(change: tuple[str, str] = ("", "")) -> Fleet:
    return load_text(SMALL.replace(*change), pathlib.Path("f.yaml"))


def asked(fleet: Fleet = EXAMPLE, question: ForecastQuestion = ASKED) -> Forecast:
    return forecast(ForecastSource(fleet), Costs(), question, NOW)


def by_weight(found: Forecast) -> dict[float, Answer]:
    return {each.weight: each for each in found.answers}


def test_the_same_seed_gives_the_same_forecast_and_another_another() -> None:
    first, again, other = (asked(question=replace(ASKED, seed=seed)).document() for seed in (1, 1, 2))
    assert first == again
    assert first["weights"] != other["weights"]


@pytest.mark.parametrize("weight", [0.0, 1.0, 33.3, 50.0, 99.0, 100.0])
def test_the_flag_is_on_for_whom_launchdarkly_serves_it(weight: float) -> None:
    fleet = virtual_fleet(small(), 400, 1)
    flags = {PUNCH: flag_from(PUNCH, Rollout(weight, "sandbox"))}
    members = [Member(SandboxAttributes(f"web-{n}", "base", "t")) for n in range(400)]
    served = {each.attributes.sandbox for each in cohort((flags, {}), PUNCH, members)}
    on = fleet.is_on((weight,), np.arange(400))[0]
    # Entries lie by their nodes: the bucket says who is who.
    named = {bucket_of(PUNCH, PUNCH, each.attributes.sandbox): each.attributes.sandbox for each in members}
    assert {named[bucket] for bucket in fleet.bucket[on]} == served


def test_by_team_whole_teams_have_the_flag() -> None:
    by_team = small(("64MiB,", "64MiB, team_size: 8,"))
    fleet = virtual_fleet(by_team.model_copy(update={"contexts": ALL}), 400, 1, "team")
    _, sizes = np.unique(fleet.bucket, return_counts=True)
    assert set(sizes.tolist()) == {8}


@pytest.mark.parametrize(("weight", "count"), [(0.0, 0), (99.999, 0), (100.0, 400)])
def test_by_a_kind_that_no_pause_knows_everybody_has_the_flag_at_once(weight: float, count: int) -> None:
    fleet = virtual_fleet(small(), 400, 1, "team")
    assert fleet.is_on((weight,), np.arange(400))[0].sum() == count


def test_no_sandbox_is_lost_with_the_flag_off_and_all_that_fail_later_with_it_on() -> None:
    found = by_weight(asked())
    assert (found[0].lost, found[0].punched_pauses) == (0, 0)
    failures = {round(each.lost + each.rolled_back, 6) for each in found.values()}
    assert len(failures) == 1
    assert found[10].lost < found[50].lost < found[100].lost
    assert 0 < found[100].rolled_back < 0.01 * found[100].lost  # the first of many chunks


def test_in_the_background_a_copy_that_fails_is_lost_whatever_the_flag_says() -> None:
    found = by_weight(asked(question=replace(ASKED, background=True)))
    assert found[0].lost == found[100].lost > 0


def test_the_more_punch_the_less_memory_nodes_need() -> None:
    found = asked().answers
    assert [each.saved for each in found] == sorted(each.saved for each in found)
    assert found[0].saved == 0 < found[-1].saved
    assert [each.fit for each in found] == sorted(each.fit or 0 for each in found)


def test_a_pause_alone_takes_its_dirty_memory_once_more_or_a_few_chunks() -> None:
    found = by_weight(asked(small(("median: 4", "median: 0.01")), replace(ASKED, sandboxes=400)))
    assert found[0].peak.max == (10 * 64 + 64) << 20
    assert found[100].peak.max == (10 * 64 + 4) << 20


def test_memory_that_is_too_small_is_passed_with_the_flag_off_only() -> None:
    tight = small(("1GiB", "690MiB")).model_copy(update={"paused_for": 1.0})
    found = by_weight(asked(tight, replace(ASKED, sandboxes=400)))
    assert (found[0].over_memory or 0) > 0.9
    assert found[100].over_memory == 0


def test_punching_huge_pages_saves_nothing_where_copies_go() -> None:
    text = SMALL.replace("64MiB,", "64MiB, page_size: 2MiB,").replace("1GiB,", "1GiB, hugetlb: 600MiB,")
    huge = load_text(text, pathlib.Path("f.yaml"))
    found = asked(huge, replace(ASKED, sandboxes=400))
    assert [each.saved for each in found.answers] == [0, 0, 0, 0]
    assert by_weight(found)[100].freed_early > 0
    assert {each.label: each.value for each in found.totals}["nodes short of 2 MiB pages"] == "100.00%"


def test_a_late_kill_switch_reaches_as_far_as_weight_rate_and_time_say() -> None:
    found = by_weight(asked())[100]
    pauses = found.punched_pauses / (ASKED.hours * 3600)
    assert [each.seconds for each in found.blast] == [0.5, 3, 300]
    assert [each.sandboxes for each in found.blast] == pytest.approx([pauses * s for s in (0.5, 3, 300)])
    assert all(each.worst_sandboxes >= each.sandboxes for each in found.blast)


def test_half_of_the_day_is_above_the_median_and_its_top_is_the_peak() -> None:
    (group,) = virtual_fleet(small(), 400, 1).groups
    rates = rate(group, np.linspace(0, DAY, 1441)[:-1])
    assert np.median(rates) == pytest.approx(4, rel=0.01)
    assert rates.max() == pytest.approx(8)


def test_an_eviction_pauses_everybody_on_its_nodes() -> None:
    calm = small(("median: 4", "median: 0.0001"))
    evicted = small(("kind:", "mass_eviction: {nodes: 25%, within: 2m, at: 1h}\nkind:"))
    evicted = calm.model_copy(update={"mass_eviction": evicted.mass_eviction})
    question = replace(ASKED, sandboxes=400)
    assert by_weight(asked(calm, question))[100].punched_pauses < 10
    assert 95 <= by_weight(asked(evicted, question))[100].punched_pauses < 110


def test_every_input_says_how_it_is_known() -> None:
    known = {each.label: each.known for each in asked().inputs}
    assert (known["costs"], known["copies that fail"], known["kill switch takes"]) == ("assumed", "given", "given")
    assert {each.known for each in asked(small()).inputs} == {"assumed", "given"}


def test_the_document_is_json_and_the_text_has_every_weight() -> None:
    found = asked()
    assert json.loads(json.dumps(found.document()))["version"] == 1
    lines = [line.split() for line in text(found.sections()).splitlines()]
    assert all(sum(line[:2] == [str(weight), "%"] for line in lines) >= 2 for weight in (0, 10, 50, 100))


def test_a_plan_gives_its_stages_and_its_fleet() -> None:
    start = source(SHIPPED / "rollouts" / "punch.yaml")
    assert isinstance(start, ForecastSource)
    assert start.stages_given
    assert start.weights[-1] == 100
    production = load_plan(SHIPPED / "rollouts" / "punch.yaml").production
    assert production is not None
    assert start.fleet.count == production.sandboxes
    found = forecast(start, Costs(), ForecastQuestion(start.fleet.count, start.weights, hours=1, by=start.by), NOW)
    assert [each.weight for each in found.answers] == [0, *(each for each in start.weights if each)]


def test_a_file_that_is_neither_fleet_nor_plan_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("kind: scenario\n")
    with pytest.raises(UserError, match=r's.yaml:1:7: error: kind: expected "fleet" or "plan"'):
        source(path)


def test_a_forecast_that_is_off_by_more_than_is_stated_does_not_agree() -> None:
    stated = Row(50, "peak", "bytes", forecast=100, real=90, short=1, over=10)
    assert Agreement(10, 1, [stated], ["held"]).holds
    assert not Agreement(10, 1, [stated], ["violated"]).holds
    assert not replace(stated, real=89).holds
    assert not replace(stated, real=102).holds
    assert not Row(50, "discarded", "sandboxes", forecast=1, real=0).holds
    assert "DIFFERS" in text(Agreement(10, 1, [replace(stated, real=80)], ["held"]).section())


def test_one_of_ten_real_copies_is_made_to_fail_the_same_for_the_same_seed() -> None:
    assert failures(50, 3) == failures(50, 3) != failures(50, 4)
    assert len(failures(50, 3)) == 5
    assert set(failures(1000, 1).values()) == {0, 1, 2, 3}


def test_what_has_no_memfd_is_exposed_and_never_punches() -> None:
    old = SMALL.replace("count: 400,", "count: 300,") + (
        "  - {name: old, count: 100, memory: 64MiB, dirty: 100%, firecracker_version: 1.12.1}\n"
    )
    fleet = load_text(old, pathlib.Path("f.yaml"))
    found = by_weight(asked(fleet, replace(ASKED, sandboxes=400)))
    assert (found[100].exposed, found[100].can_punch) == (400, 300)
    assert 0 < found[100].saved < by_weight(asked(small(), replace(ASKED, sandboxes=400)))[100].saved


def test_checkpoints_punch_and_are_lost_where_the_flag_is_on() -> None:
    with_checkpoints = small(("dirty: 100%,", "dirty: 100%, checkpoints_per_hour: 2,"))
    found = by_weight(asked(with_checkpoints, replace(ASKED, sandboxes=400)))
    assert (found[0].punched_checkpoints, found[0].lost_at_checkpoint) == (0, 0.0)
    assert found[100].punched_checkpoints == 400 * 2 * 6
    chunks = 32  # a failure at the first is rolled back
    assert found[100].lost_at_checkpoint == pytest.approx(400 * 2 * 24 * 365 * 1e-3 * (1 - 1 / chunks))
    assert all(each.lost >= each.lost_at_checkpoint for each in found.values())
    without = by_weight(asked(small(), replace(ASKED, sandboxes=400)))[100]
    assert found[100].lost == pytest.approx(without.lost + found[100].lost_at_checkpoint, rel=0.2)
    assert (without.punched_checkpoints, without.lost_at_checkpoint) == (0, 0.0)
    assert found[100].blast[-1].sandboxes > without.blast[-1].sandboxes
    background = by_weight(asked(with_checkpoints, replace(ASKED, sandboxes=400, background=True)))
    assert background[0].lost_at_checkpoint == pytest.approx(found[100].lost_at_checkpoint)


def test_a_checkpoint_alone_takes_its_new_guest_beside_the_copy() -> None:
    rare = small(("pauses_per_hour: {median: 4}", "checkpoints_per_hour: 0.05, pauses_per_hour: {median: 0.000001}"))
    found = by_weight(asked(rare, replace(ASKED, sandboxes=400)))
    assert found[0].peak.max == (10 * 64 + 64 + 64) << 20
    assert found[100].peak.max == (10 * 64 + 64 + 4) << 20


@pytest.mark.parametrize("burst", [2, 8])
def test_pauses_in_a_burst_come_in_one_moment_and_as_many_as_it_says_are_in_flight(burst: int) -> None:
    def at_once(node: str) -> Any:
        busy = small(("{memory: 1GiB,", f"{{memory: 1GiB, {node},")).model_copy(update={"paused_for": 60.0})
        often = busy.model_copy(update={"groups": tuple(g.model_copy(update=OFTEN) for g in busy.groups)})
        found = asked(often, replace(ASKED, sandboxes=400, hours=0.5))
        return next(each.value for each in found.totals if each.label == "at once")

    assert at_once(f"burst: {burst}") == burst
    assert at_once(f"concurrency: {burst}") <= at_once(f"burst: {burst}")


OFTEN = {"pauses_per_hour": PausesPerHour(median=60.0)}


def test_a_burst_peaks_higher_than_the_same_pauses_spread_out() -> None:
    spread, burst = (
        asked(small(("{memory: 1GiB,", f"{{memory: 1GiB, {node}: 10,")), replace(ASKED, sandboxes=400))
        for node in ("concurrency", "burst")
    )
    assert by_weight(burst)[0].peak.max > by_weight(spread)[0].peak.max


def test_a_share_of_a_group_that_has_no_memfd_by_the_flag_cannot_punch() -> None:
    half = by_weight(asked(small(("dirty: 100%,", "dirty: 100%, use_memfd: 50%,")), replace(ASKED, sandboxes=400)))
    assert half[100].exposed == 400
    assert 150 < half[100].can_punch < 250
    none = by_weight(asked(small(("dirty: 100%,", "dirty: 100%, use_memfd: 0%,")), replace(ASKED, sandboxes=400)))
    assert (none[100].can_punch, none[100].saved) == (0, 0)


def test_a_plan_with_a_fleet_file_is_forecast_as_that_file_has_its_fleet(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fleet.yaml").write_text(SMALL.replace("kind:", "scale: 1/8\nkind:"))
    (tmp_path / "plan.yaml").write_text(
        "kind: plan\nname: p\nfleet: fleet.yaml\ncontexts: all\nby: team\nsteps: [{setWeight: 0}, {setWeight: 20}]\n"
    )
    start = source(tmp_path / "plan.yaml")
    assert isinstance(start, ForecastSource)
    assert (start.fleet.groups, start.fleet.node) == (small().groups, small().node)
    assert (start.weights, start.by, start.fleet.contexts) == ((0.0, 20.0), "team", ALL)


def test_what_is_in_flight_on_all_nodes_at_once_is_at_least_what_is_on_one() -> None:
    often = small().model_copy(update={"groups": tuple(g.model_copy(update=OFTEN) for g in small().groups)})
    totals: dict[str, Any] = {e.label: e.value for e in asked(often, replace(ASKED, sandboxes=400, hours=0.5)).totals}
    assert totals["at once, fleet"] > totals["at once"] > 0
