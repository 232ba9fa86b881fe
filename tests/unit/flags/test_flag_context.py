from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import UserError
from flags.context import KINDS, SandboxAttributes, to_context
from flags.launchdarkly import make_context

WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def test_a_context_has_every_kind_with_its_key() -> None:
    context = make_context(to_context(WEB))
    keys = {kind: found.key for kind in KINDS if (found := context.get_individual_context(kind))}
    assert keys == {
        "sandbox": "web-0",
        "team": "acme",
        "template": "python",
        "cluster": "local",
        "deployment": "snapdrill",
        "service": "orchestrator",
    }


def test_the_sandbox_carries_its_attributes() -> None:
    sandbox = make_context(to_context(WEB)).get_individual_context("sandbox")
    assert sandbox is not None
    names = ("template-id", "sandbox-type", "kernel-version", "firecracker-version")
    expected = ["python", WEB.sandbox_type, WEB.kernel_version, WEB.firecracker_version]
    assert [sandbox.get(name) for name in names] == expected


@pytest.mark.parametrize("kind", ["sandbox", "team", "template", "cluster"])
def test_an_empty_key_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="invalid flag context"):
        make_context(to_context(replace(WEB, **{kind: ""})))
