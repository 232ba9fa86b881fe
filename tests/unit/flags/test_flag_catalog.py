from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import UserError
from flags.catalog import CATALOG, FLAGS, flag


def test_the_catalogue_names_each_flag_once() -> None:
    assert len(FLAGS) == len(CATALOG)


def test_nothing_is_punched_by_default() -> None:
    assert flag("memfd-punch-on-snapshot").safe is False


def test_an_unknown_flag_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match='"memfd-punch-on-snapshots"; did you mean "memfd-punch-on-snapshot"'):
        flag("memfd-punch-on-snapshots")


def test_a_flag_like_no_other_is_refused_with_the_list_of_all() -> None:
    with pytest.raises(UserError, match="use one of: memfd-background-copy, memfd-punch-on-snapshot"):
        flag("zzz")


def test_only_the_launchdarkly_module_pulls_the_sdk_in() -> None:
    program = (
        "import sys, flags, flags.catalog, flags.context, flags.decision, flags.inline, flags.lint, flags.client\n"
        "sys.exit('ldclient' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
