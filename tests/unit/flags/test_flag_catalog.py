from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import UserError
from flags.catalog import CATALOG, FLAGS, did_you_mean, flag, nearest


def test_the_catalogue_names_each_flag_once() -> None:
    assert len(FLAGS) == len(CATALOG)


def test_nothing_is_punched_by_default() -> None:
    assert flag("memfd-punch-on-snapshot").safe is False


def test_the_safe_value_of_every_flag_is_of_its_own_type() -> None:
    assert [each.key for each in CATALOG if each.accepted(each.safe) != each.safe] == []


def test_what_a_flag_overrides_or_needs_is_in_the_catalogue() -> None:
    assert {other for each in CATALOG for other in (*each.overrides, *each.needs)} <= FLAGS.keys()


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ({"enabled": True}, {"enabled": True}),
        ({}, {}),
        ({"enabled": True, "blockFaultPct": 3, "newer": "x"}, {"enabled": True, "blockFaultPct": 3, "newer": "x"}),
        ({"enabled": "true"}, None),
        ({"enabled": 1}, None),
        ({"blockFaultPct": True}, None),
        ({"blockFaultPct": 1.0}, None),
        ({"blockFaultPct": -1}, None),
        (True, None),
        ([], None),
        (None, None),
    ],
)
def test_an_object_is_accepted_where_every_setting_it_has_is_of_its_type(value: object, accepted: object) -> None:
    assert flag("memfile-diff-dedup").accepted(value) == accepted


def test_an_accepted_object_is_a_copy() -> None:
    given = {"enabled": True}
    taken = flag("memfile-diff-dedup").accepted(given)
    given["enabled"] = False
    assert taken == {"enabled": True}


@pytest.mark.parametrize("value", ["true", 1, None, {"enabled": True}])
def test_a_boolean_flag_accepts_nothing_but_a_boolean(value: object) -> None:
    assert flag("use-memfd").accepted(value) is None


def test_an_unknown_flag_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match='"memfd-punch-on-snapshots"; did you mean "memfd-punch-on-snapshot"'):
        flag("memfd-punch-on-snapshots")


def test_a_flag_like_no_other_is_refused_with_the_list_of_all() -> None:
    with pytest.raises(UserError, match=r"use one of: defer-memory-export, .*, use-sync-wp$"):
        flag("zzz")


def test_only_the_launchdarkly_module_pulls_the_sdk_in() -> None:
    program = (
        "import sys, flags, flags.catalog, flags.context, flags.decision, flags.inline, flags.lint, flags.client\n"
        "sys.exit('ldclient' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_unknown_word_gets_the_nearest_known_one_else_what_to_do_otherwise() -> None:
    known = ["ENOSPC", "EIO"]
    assert (nearest("ENOSPCE", known), nearest("did", known)) == ("ENOSPC", None)
    assert did_you_mean("ENOSPCE", known, "write one") == 'did you mean "ENOSPC"?'
    assert did_you_mean("did", known, "write one") == "write one"
    assert did_you_mean("did", known) == "use one of: EIO, ENOSPC"
