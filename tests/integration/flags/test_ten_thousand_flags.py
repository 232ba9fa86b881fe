"""A large flag file: a change of one flag in it does the work of one flag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flags import launchdarkly
from flags.context import SandboxAttributes
from flags.file import FileFlags
from flags.inline import Rollout, flag_from

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def test_a_change_of_one_flag_of_ten_thousand_decodes_that_flag_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled = flag_from(PUNCH, Rollout(50, "sandbox"))
    flags = {f"other-{number}": {**rolled, "key": f"other-{number}"} for number in range(10_000)}
    path = tmp_path / "flags.json"
    decode, decoded = launchdarkly._decoded, list[str]()

    def counted(kind: Any, item: Mapping[str, Any], key: str) -> Any:
        decoded.append(key)
        return decode(kind, item, key)

    def write(on: bool) -> None:
        path.write_text(json.dumps({"flags": {**flags, PUNCH: {**flag_from(PUNCH, True), "on": on}}}))

    write(True)
    monkeypatch.setattr(launchdarkly, "_decoded", counted)
    with closing(FileFlags(path, poll=3600.0)) as followed:
        assert followed.decide(WEB).is_on(PUNCH)
        assert len(decoded) == 10_001
        for on in (False, True):
            decoded.clear()
            write(on)
            followed.refresh()
            assert followed.decide(WEB).is_on(PUNCH) is on
            assert decoded == [PUNCH]
