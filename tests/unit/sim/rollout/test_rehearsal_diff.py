from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from flags.document import DocumentError
from sim.files.plan import load_plan_text
from sim.report.table import text
from sim.rollout.outputs import rehearsal_document
from sim.rollout.rehearsal_diff import DOCUMENT, compare_rehearsals, diff_sections, document_of
from sim.rollout.results import Rehearsal
from sim.rollout.shown import loss_bound

Made = Callable[..., Rehearsal]
TEXT = """\
kind: plan
name: small
production: {sandboxes: 1000, pausesPerMinute: 600}
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 0
  - setWeight: 50
"""


@pytest.fixture
def document(rehearsed: Made) -> dict[str, Any]:
    made = rehearsed(load_plan_text(TEXT, pathlib.Path("plan.yaml")), reasons=("all is well",))
    bound = loss_bound(None, [each.exposure for each in made.stages], ["web-0"], [])
    document: dict[str, Any] = json.loads(json.dumps(rehearsal_document(made)))
    return document | {"bound": {"rate": bound.rate, "confidence": 0.95, "tried": 1, "demanded": None, "met": True}}


def test_a_rehearsal_is_the_same_as_itself(document: dict[str, Any]) -> None:
    found = compare_rehearsals(document, deepcopy(document))
    assert found.same
    assert [each for each in found.lines if each.differs] == []
    assert "the same decision, stages, bounds and outcomes" in text(diff_sections(found, ("a", "b")), width=100)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("decision",), "no-go", "decision"),
        (("bound", "rate"), 0.005, "bound"),
        (("stages", 1, "exposed", "sandboxes"), ["web-3"], "stage 2 (50 %): exposed"),
        (("stages", 1, "lost_because_of_the_flag"), ["web-1"], "stage 2 (50 %): lost because of the flag"),
        (("stages", 1, "incident", "punched", "p99"), 7, "stage 2 (50 %): punched before OFF is obeyed"),
    ],
)
def test_what_decides_and_differs_is_named_with_both_values(
    document: dict[str, Any], path: tuple[Any, ...], value: Any, name: str
) -> None:
    other = deepcopy(document)
    inside = other
    for each in path[:-1]:
        inside = inside[each]
    inside[path[-1]] = value
    found = compare_rehearsals(document, other)
    assert not found.same
    assert [each.name for each in found.lines if each.differs] == [name]
    assert name in text(diff_sections(found, ("a", "b")), width=200)


def test_a_size_that_was_measured_differs_and_decides_nothing(document: dict[str, Any]) -> None:
    other = deepcopy(document)
    other["stages"][1]["saved_at_peak"]["largest_pauses_at_once"] = 5
    found = compare_rehearsals(document, other)
    assert found.same
    assert [each.name for each in found.lines if each.differs] == ["stage 2 (50 %): saved at peak"]


def test_a_stage_that_one_never_reached_is_told(document: dict[str, Any]) -> None:
    other = document | {"stages": document["stages"][:1]}
    found = compare_rehearsals(document, other)
    assert not found.same
    assert {each.second for each in found.lines if each.name.startswith("stage 2")} == {"-"}


def test_a_folder_without_a_rehearsal_has_no_document_and_a_broken_one_is_a_mistake(tmp_path: pathlib.Path) -> None:
    assert document_of(tmp_path) is None
    for wrong, says in (("{", "not JSON"), ('{"version": 9}', "expected a rehearsal of version 1"), ("[]", "expected")):
        (tmp_path / DOCUMENT).write_text(wrong)
        with pytest.raises(DocumentError, match=says):
            document_of(tmp_path)
