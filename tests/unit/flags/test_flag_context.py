from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.errors import UserError
from flags.catalog import CATALOG
from flags.context import ALL, KINDS, MOMENTS, ORIGINAL, SandboxAttributes, contexts_of, has_memfd
from flags.inline import Rollout, flag_from
from flags.launchdarkly import make_context
from flags.memory import MemoryFlags

WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def test_a_context_of_all_kinds_has_each_with_its_key() -> None:
    context = make_context(ALL.context(WEB, "pause"))
    keys = {kind: found.key for kind in KINDS if (found := context.get_individual_context(kind))}
    assert keys == {
        "sandbox": "web-0",
        "team": "acme",
        "template": "python",
        "cluster": "local",
        "deployment": "snapdrill",
        "orchestrator": "node-1",
        "service": "orchestrator",
    }


@pytest.mark.parametrize(
    ("moment", "kinds"),
    [
        ("create", {"sandbox", "team", "deployment", "orchestrator"}),
        ("resume", {"sandbox", "team", "deployment", "orchestrator"}),
        ("pause", {"sandbox", "deployment", "orchestrator"}),
        ("checkpoint", {"sandbox", "deployment", "orchestrator"}),
        ("in-place", {"deployment", "orchestrator"}),
    ],
)
def test_the_original_knows_the_team_at_create_and_resume_alone(moment: Any, kinds: set[str]) -> None:
    assert ORIGINAL.context(WEB, moment).keys() - {"kind"} == kinds


def test_the_sandbox_and_its_node_carry_their_attributes() -> None:
    context = make_context(ORIGINAL.context(replace(WEB, commit="abc", orchestrator="n7"), "pause"))
    sandbox, node = context.get_individual_context("sandbox"), context.get_individual_context("orchestrator")
    assert sandbox is not None
    assert node is not None
    names = ("template-id", "sandbox-type", "kernel-version", "firecracker-version", "envd-version")
    expected = ["python", WEB.sandbox_type, WEB.kernel_version, WEB.firecracker_version, WEB.envd_version]
    assert [sandbox.get(name) for name in names] == expected
    assert (node.key, node.get("commit")) == ("n7", "abc")


@pytest.mark.parametrize("kind", ["sandbox", "team", "template", "cluster"])
def test_an_empty_key_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="invalid flag context"):
        make_context(ALL.context(replace(WEB, **{kind: ""}), "pause"))  # type: ignore[arg-type]


def test_a_table_of_its_own_names_kinds_or_some_of_their_attributes() -> None:
    own = contexts_of({"pause": ["sandbox.kernel-version", "sandbox.envd-version", "team"]})
    assert own.shapes["pause"] == {"sandbox": ("key", "kernel-version", "envd-version"), "team": ("key",)}
    assert own.shapes["resume"] == ORIGINAL.shapes["resume"]
    assert contexts_of(own.written) == own


@pytest.mark.parametrize("name", ["original", "all"])
def test_a_preset_is_named(name: str) -> None:
    assert contexts_of(name).written == name
    assert set(contexts_of(name).shapes) == set(MOMENTS)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("most", "original, all, or a table"),
        ({}, "original, all, or a table"),
        (["sandbox"], "original, all, or a table"),
        ({"stop": ["sandbox"]}, 'no moment "stop"; use one of: create'),
        ({"pause": "sandbox"}, "pause takes a list of kinds"),
        ({"pause": []}, "pause takes a list of kinds"),
        ({"pause": ["host"]}, 'no kind "host"; use one of: sandbox'),
        ({"pause": ["team.name"]}, 'team has no "name"; use one of: key'),
    ],
)
def test_a_table_that_is_none_is_refused(written: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        contexts_of(written)


def test_every_flag_is_read_at_some_moment() -> None:
    assert {moment for flag in CATALOG for moment in flag.moments} == set(MOMENTS)


def test_one_flag_has_another_cohort_at_another_moment() -> None:
    key = "use-memfd"
    flags = MemoryFlags({key: flag_from(key, Rollout(50, "team"))})
    teams = [replace(WEB, team=f"team-{number}") for number in range(40)]
    by_moment = {m: [flags.decide(each, m).is_on(key) for each in teams] for m in MOMENTS}
    assert set(by_moment["resume"]) == {True, False}
    assert by_moment["create"] == by_moment["resume"]
    assert set(by_moment["pause"]) == {True}, "no team, and so the first entry, for everybody"


@pytest.mark.parametrize(("contexts", "apart"), [(ORIGINAL, False), (ALL, True)], ids=["original", "all"])
def test_whether_a_checkpoint_is_in_place_is_one_answer_for_all_unless_the_contexts_name_the_sandbox(
    contexts: Any, apart: bool
) -> None:
    key = "in-place-checkpoint"
    flags = MemoryFlags({key: flag_from(key, Rollout(50, "sandbox"))}, contexts=contexts)
    decided = {flags.decide(replace(WEB, sandbox=f"web-{n}"), "checkpoint").is_on(key) for n in range(40)}
    assert (len(decided) == 2) is apart


@pytest.mark.parametrize(
    ("version", "can"),
    [("1.14.0", True), ("1.14", True), ("2.0.0", True), ("1.13.9", False), ("1.9.0", False), ("v1.14.1", True)],
)
def test_a_memfd_needs_firecracker_1_14(version: str, can: bool) -> None:
    assert has_memfd(version) is can
