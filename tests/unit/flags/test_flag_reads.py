"""What a flag reads of a context, and which of it a table of sandboxes does not give."""

from __future__ import annotations

from typing import Any

from flags.context import ALL, ORIGINAL, SandboxAttributes
from flags.reads import lacking, reads
from tests.production_fleet import KEY, flags

FLAG: dict[str, Any] = {
    "prerequisites": [{"key": "other", "variation": 0}],
    "contextTargets": [{"contextKind": "cluster", "values": ["a"], "variation": 0}],
    "rules": [
        {
            "id": "old",
            "clauses": [{"contextKind": "sandbox", "attribute": "firecracker-version", "op": "semVerLessThan"}],
        },
        {"clauses": [{"contextKind": "sandbox", "attribute": "/tier/0"}, {"attribute": "country"}]},
        {"id": "seg", "clauses": [{"op": "segmentMatch", "values": ["banks", "gone"]}]},
    ],
    "fallthrough": {"rollout": {"contextKind": "team", "bucketBy": "region"}},
}
SEGMENTS: dict[str, Any] = {
    "banks": {
        "includedContexts": [{"contextKind": "team", "values": ["t"]}],
        "rules": [
            {"clauses": [{"op": "segmentMatch", "values": ["banks", "inner"]}]},
            {"weight": 5, "rolloutContextKind": "template", "clauses": []},
        ],
    },
    "inner": {"rules": [{"clauses": [{"contextKind": "team", "attribute": "name"}]}]},
}
OTHER = {"fallthrough": {"rollout": {"contextKind": "orchestrator"}}, "prerequisites": [{"key": "flag"}, 5]}


def test_every_part_of_a_flag_that_reads_an_attribute_is_named_once() -> None:
    assert reads("flag", {"flag": FLAG, "other": OTHER}, SEGMENTS) == {
        ("cluster", "key"): "targets",
        ("sandbox", "firecracker-version"): "rule old",
        ("sandbox", "tier"): "rule 1",
        ("user", "country"): "rule 1",
        ("team", "region"): "default rule",
        ("team", "key"): "segment banks",
        ("template", "key"): "segment banks",
        ("team", "name"): "segment inner",
        ("orchestrator", "key"): "prerequisite other, default rule",
    }


def test_a_column_that_the_flag_reads_and_the_table_lacks_is_said_with_who_reads_it() -> None:
    whole = SandboxAttributes("a", "p", "t", others=(("tier", "gold"), ("team.name", "x"), ("team.region", "eu")))
    none = SandboxAttributes("b", "p", "t", absent=("cluster", "orchestrator", "firecracker_version"))
    sections = ({"flag": FLAG, "other": OTHER}, SEGMENTS)
    assert lacking("flag", *sections, [whole], ALL.shapes["pause"]) == []
    found = [str(each) for each in lacking("flag", *sections, [none], ALL.shapes["pause"])]
    assert found[0] == "flag reads cluster (targets); the table has no such column: absent everywhere"
    assert [line.split()[2] for line in found] == [
        *("cluster", "firecracker-version", "tier", "team.region", "team.name", "orchestrator")
    ]
    (half, *_) = lacking("flag", *sections, [none, whole], ALL.shapes["pause"])
    assert str(half) == "flag reads cluster (targets); 1 of 2 rows have none: absent there"
    here = {each.column for each in lacking("flag", *sections, [none], ORIGINAL.shapes["pause"])}
    assert here == {"firecracker-version", "tier", "orchestrator"}  # what no pause knows, contexts say already


def test_what_a_flag_reads_is_found_whatever_its_file_holds() -> None:
    odd: dict[str, Any] = {"rules": [5, {"clauses": [{"op": "segmentMatch"}]}], "fallthrough": 3, "targets": "x"}
    assert reads("flag", {"flag": odd}, {}) == {}
    assert reads("gone", {}, {}) == {}
    document = flags()
    assert ("team", "name") in reads(KEY, document["flags"], document["segments"])
