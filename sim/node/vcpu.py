"""A virtual machine's processor as a build keeps it: whose it was, for which build, and its digest."""

from __future__ import annotations

import hashlib
import json

from engine.errors import CorruptBuildError
from sim.record.oracle import GENERATIONS

VCPU = "vcpu"
"""The attachment's name. It is no part of a build's content hash: that names memory alone."""


def digest_of(state: bytes) -> str:
    """Names a state; hex."""
    return hashlib.blake2b(state, digest_size=16).hexdigest()


def sealed(sandbox: str, build: str, state: bytes) -> bytes:
    """The attachment."""
    return json.dumps({"sandbox": sandbox, "build": build, "digest": digest_of(state), "state": state.hex()}).encode()


def attachments(sandbox: str, build: str, generations: bytes, processor: bytes) -> dict[str, bytes]:
    """What a build keeps beside the memory; no `processor` where the guest is a process."""
    kept = {GENERATIONS: generations}
    return kept | {VCPU: sealed(sandbox, build, processor)} if processor else kept


def opened(data: bytes, sandbox: str, build: str) -> bytes:
    """The state in an attachment; raises CorruptBuildError, of `build`, where it is damaged or of another one."""
    try:
        content = json.loads(data)
        state = bytes.fromhex(content["state"])
        whose, digest = (content["sandbox"], content["build"]), content["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptBuildError(build, f": its processor state cannot be read: {error}") from error
    if whose != (sandbox, build):
        raise CorruptBuildError(build, f": its processor state is that of build {whose[1]} of {whose[0]}")
    if digest_of(state) != digest:
        raise CorruptBuildError(build, ": its processor state does not match its digest")
    return state
