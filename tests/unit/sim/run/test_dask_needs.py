"""What a unit asks of a cluster's workers and what they offer; how it travels, and how its folder comes back."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import tarfile
from typing import Any

import pytest

from sim import cli
from sim.files.scenario import load, load_text
from sim.record.verdict import ExitCode
from sim.run import dask_worker
from sim.run import host as probe
from sim.run.cases import Unit, memory_need, pack, unpack
from sim.run.dask import needs_of, unmet
from sim.run.dask_worker import MEMORY, VERSION, UnitRunner, resources
from sim.run.orders import Order, refusal

MIB = 1 << 20
HERE = pathlib.Path("/nowhere")
PLAIN = """\
name: asks
fleet: [{name: web, count: 3, memory: 8MiB}]
steps: [tick: 1]
"""


def asks(more: str = "") -> dict[str, float]:
    found = needs_of(Unit.of("u", load_text(PLAIN + more, HERE / "asks.yaml"), HERE))
    return {name: amount for name, amount in found.items() if name not in {MEMORY, VERSION}}


def offer(**more: float) -> dict[str, Any]:
    return {"resources": {MEMORY: 100.0, VERSION: 2.0, **more}, "nthreads": 2}


def test_a_unit_asks_for_its_memory_and_for_its_own_version() -> None:
    scenario = load_text(PLAIN, HERE / "asks.yaml")
    assert needs_of(Unit.of("u", scenario, HERE)) == {MEMORY: -(-memory_need(scenario) // MIB), VERSION: 1.0}


def test_memory_is_asked_for_in_whole_mib_upwards() -> None:
    assert needs_of(Unit("u", "", HERE, HERE, 3 * MIB + 1))[MEMORY] == 4.0


def test_what_a_scenario_requires_its_worker_must_have() -> None:
    assert asks("requires: [root, cgroup]\n") == {"root": 1.0, "cgroup": 1.0}


def test_huge_pages_are_asked_for_by_their_size() -> None:
    text = PLAIN.replace("memory: 8MiB", "memory: 8MiB, page_size: 2MiB")
    found = needs_of(Unit.of("u", load_text(text, HERE / "asks.yaml"), HERE))
    assert found["hugetlb_mib"] == 24.0


def test_a_fault_by_the_kernel_asks_for_a_call_filter() -> None:
    steps = "steps: [inject: {fault: punch, errno: EPERM, by: kernel, sandboxes: web-0}]\n"
    text = PLAIN.replace("steps: [tick: 1]\n", steps)
    found = needs_of(Unit.of("u", load_text(text, HERE / "asks.yaml"), HERE))
    assert found["call_filter"] == 1.0


def test_flags_from_launchdarkly_ask_for_a_worker_that_has_a_key() -> None:
    assert asks("flags: {source: launchdarkly}\n") == {"launchdarkly": 1.0}


def test_what_one_worker_has_is_not_lacking_whatever_the_others_have() -> None:
    needs = {MEMORY: 100.0, "cgroup": 1.0}
    assert unmet(needs, {"a": offer(), "b": offer(cgroup=2.0)}) is None


def test_what_no_worker_has_together_is_named_by_the_nearest_worker() -> None:
    needs = {MEMORY: 200.0, "cgroup": 1.0}
    told = unmet(needs, {"a": offer(), "b": offer(cgroup=2.0)})
    assert told == "no worker of the cluster offers what it needs: memory_mib 200"


def test_a_cluster_without_workers_is_said_to_have_none() -> None:
    assert "has no worker" in (unmet({MEMORY: 1.0}, {}) or "")


def test_a_host_offers_what_it_was_found_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"kernel": "7", "hugetlb_free": 64 * MIB, "hugetlb": True, "cgroup": False}
    monkeypatch.setattr(probe, "host", lambda: found)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-of-nobody")
    assert resources(3, 512 * MIB) == {
        MEMORY: 512.0, "hugetlb_mib": 64.0, VERSION: 3.0, "hugetlb": 3.0, "launchdarkly": 3.0
    }  # fmt: skip


SENT = Order(Unit("u", PLAIN, HERE / "asks.yaml", HERE / "runs", 1 << 20, seed=3), None)


def changed(**fields: Any) -> Order:
    return Order(dataclasses.replace(SENT.unit, **fields), None)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ("rm -r runs", "this is no order of a run, but str"),
        (SENT.unit, "this is no order of a run, but Unit"),
        (Order("a unit", None), "this is no order of a run, but Order"),  # type: ignore[arg-type]
        (Order(SENT.unit, "flags"), "the order's flag file is str, not bytes"),  # type: ignore[arg-type]
        (Order(SENT.unit, bytes(17 << 20)), "the order is refused: its scenario or flag file is larger than 16 MiB"),
        (changed(text="x" * (17 << 20)), "the order is refused: its scenario or flag file is larger than 16 MiB"),
        (changed(text=b"name: x"), "the order is refused: text: Input should be a valid string"),
        (changed(seed="3"), "the order is refused: seed: Input should be a valid integer"),
        (changed(seed=-1), "the order is refused: need and seed go from 0 to 2^63 - 1"),
        (changed(need=1 << 70), "the order is refused: need and seed go from 0 to 2^63 - 1"),
        (changed(time_limit=float("inf")), "the order is refused: time_limit is no number of seconds"),
        (changed(keep="all"), "the order is refused: keep: Input should be 'never', 'failed' or 'always'"),
        (changed(runs_dir="/etc"), "the order is refused: runs_dir: Input should be an instance of Path"),
        (changed(runs_dir=pathlib.Path("runs")), "the order is refused: a path is not absolute"),
        (changed(name="n" * 5000), "the order is refused: its name is longer than 4096 characters"),
        (changed(host_needs=[("kvm", 1)]), "the order is refused: host_needs: Input should be a valid tuple"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_no_order_is_refused_by_a_worker_in_one_line(order: Any, why: str, tmp_path: pathlib.Path) -> None:
    result = UnitRunner(tmp_path, 1).run("key", order)
    assert (result.verdict, result.error) == (None, why)


def test_what_a_client_sends_is_an_order(tmp_path: pathlib.Path) -> None:
    assert refusal(SENT) is None
    assert refusal(order(with_flag_file(tmp_path / "a"))) is None


def with_flag_file(folder: pathlib.Path) -> Unit:
    folder.mkdir()
    (folder / "flags.json").write_text('{"flags": {}}')
    path = folder / "asks.yaml"
    path.write_text(PLAIN + "flags: {file: flags.json}\n")
    return Unit.of("u", load(path), folder / "runs")


def order(unit: Unit) -> Order:
    assert unit.flag_file is not None
    return Order(unit, unit.flag_file.read_bytes())


def test_a_unit_is_run_as_it_is_where_its_flag_file_is_the_same(tmp_path: pathlib.Path) -> None:
    unit = with_flag_file(tmp_path / "a")
    with dask_worker._at_home(order(unit), tmp_path / "of-worker") as at_home:
        assert at_home == dataclasses.replace(unit, runs_dir=tmp_path / "of-worker", packed=True)


@pytest.mark.parametrize("elsewhere", ["gone", "another"])
def test_a_flag_file_travels_with_its_unit(tmp_path: pathlib.Path, elsewhere: str) -> None:
    unit = with_flag_file(tmp_path / "a")
    sent, file = order(unit), tmp_path / "a" / "flags.json"
    file.unlink() if elsewhere == "gone" else file.write_text("{}")
    with dask_worker._at_home(sent, tmp_path) as at_home:
        found = load_text(at_home.text, at_home.path).flag_file
        assert found is not None
        assert found.read_bytes() == sent.flags
    assert not found.exists()


def test_a_packed_run_becomes_a_run_of_another_folder(tmp_path: pathlib.Path) -> None:
    run_dir = tmp_path / "there" / "demo" / "20260102T030405Z-1"
    run_dir.mkdir(parents=True)
    (run_dir / "events.jsonl").write_text("{}\n")
    packed = pack(run_dir)
    first, second = (unpack(packed, tmp_path / "here") for _ in range(2))
    assert first == tmp_path / "here" / "demo" / run_dir.name
    assert second == first.with_name(f"{run_dir.name}-2")
    assert (second / "events.jsonl").read_text() == "{}\n"
    assert (first.parent / "latest").resolve() == second
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["demo"]


def test_a_packed_run_never_leaves_its_folder(tmp_path: pathlib.Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    with pytest.raises(tarfile.TarError):
        unpack(packed.getvalue(), tmp_path / "here")
    assert list(tmp_path.rglob("outside")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "--cluster", "host:1", "--jobs", "2"],
        ["sweep", "--cluster", "host:1", "--memory", "1GiB"],
        ["run", "--cluster", "host:1", "--seeds", "1", "--jobs", "2"],
        ["run", "--cluster", "local"],
        ["worker", "host:1", "--memory", "lots"],
    ],
)
def test_options_that_say_nothing_to_a_cluster_are_refused(tmp_path: pathlib.Path, arguments: list[str]) -> None:
    path = tmp_path / "asks.yaml"
    path.write_text(PLAIN)
    scenario = [] if arguments[0] == "worker" else [str(path)]
    assert cli.main([*arguments, *scenario]) == ExitCode.USAGE
