"""What LaunchDarkly is told about a sandbox: attributes, and the multi-kind context made of them, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KINDS = ("sandbox", "team", "template", "cluster", "deployment", "service")
_OF_THE_SANDBOX = {
    "template-id": "template",
    "sandbox-type": "sandbox_type",
    "kernel-version": "kernel_version",
    "firecracker-version": "firecracker_version",
}
ATTRIBUTES: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ("key",)) | {"sandbox": ("key", *_OF_THE_SANDBOX)}
"""The attributes that a context of each kind has."""


@dataclass(frozen=True, slots=True)
class SandboxAttributes:
    """Who a decision is for. Versions are bare semantic ones, for LaunchDarkly's semVer operators."""

    sandbox: str
    template: str
    team: str
    cluster: str = "local"
    deployment: str = "snapdrill"
    service: str = "orchestrator"
    sandbox_type: str = "default"
    kernel_version: str = "6.1.158"
    firecracker_version: str = "1.14.1"


def to_context(attributes: SandboxAttributes) -> dict[str, Any]:
    """The multi-kind context in LaunchDarkly's JSON form: a key for each of KINDS, attributes on the sandbox."""
    context: dict[str, Any] = {kind: {"key": getattr(attributes, kind)} for kind in KINDS}
    context["sandbox"] |= {name: getattr(attributes, field) for name, field in _OF_THE_SANDBOX.items()}
    return {"kind": "multi", **context}
