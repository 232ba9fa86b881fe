"""A clause is dead only where no value of the type that the table has meets it, by LaunchDarkly's own evaluator."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from flags.cells import meets
from flags.context import ORIGINAL, Attribute, SandboxAttributes, further_types, with_further
from flags.inline import flag_from
from flags.lint import check

PUNCH = "memfd-punch-on-snapshot"
ON = flag_from(PUNCH, True)


def clause(name: str, op: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"contextKind": "sandbox", "attribute": name, "op": op, "values": list(values), **more}


def said(cells: list[Attribute], *clauses: dict[str, Any], **serves: Any) -> list[str]:
    """What lint says of a flag that denies by these clauses, where a table's column `cores` has these cells."""
    rows = [SandboxAttributes("web-0", "python", "acme", others=(("cores", each),)) for each in cells]
    flag = {**ON, "rules": [{"clauses": list(clauses), **({"variation": 0} | serves)}]}
    found = check(json.dumps({"flags": {PUNCH: flag}}), with_further(ORIGINAL, further_types(rows)))
    return [each.text for each in found]


@pytest.mark.parametrize(
    ("cells", "live"),
    [
        ([2, 8], clause("cores", "greaterThan", 4)),
        ([2, 8], clause("cores", "lessThanOrEqual", 4)),
        ([2, 8], clause("cores", "in", 4)),
        ([2, 8], clause("cores", "in", 4, negate=True)),
        ([2, "8"], clause("cores", "startsWith", "4")),
        ([2.5], clause("cores", "lessThan", 0.25)),
        ([1_700_000_000_000], clause("cores", "after", "2026-01-31T12:00:00Z")),
        (["2026-01-31T12:00:00Z"], clause("cores", "after", -1e300)),
        ([True], clause("cores", "in", False)),
    ],
)
def test_a_clause_on_values_of_the_type_that_the_table_has_is_no_mistake(
    cells: list[Attribute], live: dict[str, Any]
) -> None:
    assert said(cells, live) == []


@pytest.mark.parametrize(
    ("cells", "dead", "message"),
    [
        (["2", "8"], clause("cores", "greaterThan", 4), "greaterThan compares numbers, and sandbox cores is text"),
        ([2, 8], clause("cores", "greaterThan", "4"), '"4" is text, and sandbox cores is a number'),
        ([2, 8], clause("cores", "in", "4"), '"4" is text, and sandbox cores is a number'),
        ([2, 8], clause("cores", "startsWith", "4"), "startsWith compares text, and sandbox cores is a number"),
        ([2, 8], clause("cores", "in", 0.5), "no sandbox cores meets in 0.5"),
        ([True], clause("cores", "in", 1), "1 is a number, and sandbox cores is true or false"),
        ([True, 1], clause("cores", "in", "yes"), '"yes" is text, and sandbox cores is a number or true or false'),
        ([True], clause("cores", "lessThan", 1), "lessThan compares numbers, and sandbox cores is true or false"),
    ],
)
def test_a_clause_of_another_type_than_the_table_has_is_dead(
    cells: list[Attribute], dead: dict[str, Any], message: str
) -> None:
    assert said(cells, dead) == [message]


def test_clauses_on_numbers_are_tried_together() -> None:
    above, below = clause("cores", "greaterThan", 4), clause("cores", "lessThan", 5)
    assert said([2, 8], above, below) == ["no context meets all clauses of the rule"]
    assert said([2.5, 8], above, below) == []
    assert said([2, 8], above, clause("cores", "lessThan", 6)) == []


def test_a_number_that_no_list_names_is_tried_too() -> None:
    between = [clause("cores", "greaterThan", 2), clause("cores", "lessThan", 8)]
    assert said([2, 8], *between, clause("cores", "in", 3, 4, 6, 7, negate=True)) == []
    nothing = ["no context meets all clauses of the rule"]
    assert said([2, 8], *between, clause("cores", "in", 3, 4, 5, 6, 7, negate=True)) == nothing


def test_a_witness_names_a_number_and_no_attribute_that_the_flag_does_not_read() -> None:
    others = (("cores", 8), ("gpu", True), ("load", 0.5))
    table = with_further(ORIGINAL, further_types([SandboxAttributes("web-0", "python", "acme", others=others)]))
    rules = [{"variation": at, "clauses": [clause("cores", op, 4)]} for at, op in ((1, "greaterThan"), (0, "in"))]
    late = {"variation": 0, "clauses": [clause("cores", "greaterThan", 5)]}
    (mistake,) = check(json.dumps({"flags": {PUNCH: {**ON, "rules": [*rules, late]}}}), table)
    assert mistake.production == "the rule denies no context: sandbox cores 6 is punched"


def test_a_share_is_drawn_by_text_and_whole_numbers_and_by_nothing_else() -> None:
    entries = [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]
    share = {"variation": None, "rollout": {"contextKind": "sandbox", "bucketBy": "cores", "variations": entries}}
    nothing = "the rollout has nothing to draw by where sandbox cores is neither text nor a whole number"
    columns: list[list[Attribute]] = [[2, 8], ["a"], [2.5], [2, True]]
    assert [nothing in said(cells, **share) for cells in columns] == [False, False, True, True]


CELLS: tuple[list[Attribute], ...] = (
    ["4", "web-1", "2026-01-31T12:00:00Z", "6.1.0"],
    [0, 3, 4, 5, -7, 2**60, 1_769_860_800_000],
    [0.5, 3.25, 4.000001, -1e300],
    [True, False],
)
OPERATORS = (
    *("in", "startsWith", "endsWith", "contains", "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"),
    *("before", "after", "semVerEqual", "semVerLessThan", "semVerGreaterThan"),
)


@pytest.mark.parametrize("seed", range(5))
def test_clauses_that_some_row_meets_are_never_dead(seed: int) -> None:
    """Random columns of one type or several; the right value is LaunchDarkly's evaluator on the rows themselves."""
    draw = random.Random(seed)
    live = 0
    for _ in range(60):
        cells = [draw.choice(draw.choice(draw.sample(CELLS, draw.randint(1, 2)))) for _ in range(draw.randint(1, 6))]
        clauses = [
            clause(
                "cores",
                draw.choice(OPERATORS),
                *(draw.choice(draw.choice(CELLS)) for _ in range(draw.randint(1, 2))),
                negate=draw.random() < 0.3,
            )
            for _ in range(draw.randint(1, 2))
        ]
        if any(all(meets(each, cell) for each in clauses) for cell in cells):
            live += 1
            assert said(cells, *clauses) == [], (cells, clauses)
    assert live > 3
