"""Where a context lands in a percentage rollout: LaunchDarkly's bucketing, for showing and for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 0xFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Landing:
    """`bucket` is from 0 to 1, None where the context lacks the rollout's kind; `by` says what was hashed.

    The entry served covers buckets from `low` up to `high`, where the weights leave it.
    """

    kind: str
    by: str
    hashed: str | None
    bucket: float | None
    entry: int
    low: float
    high: float


def bucket_of(key: str, salt: str, value: str, seed: int | None = None) -> float:
    """From 0 to 1: the first 60 bits of SHA-1 (SDK evaluator, bucket_context); with a seed, key and salt count not."""
    prefix = f"{key}.{salt}" if seed is None else str(seed)
    digest = hashlib.sha1(f"{prefix}.{value}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:15], 16) / _LONGEST


def landing(flag: Mapping[str, Any], rollout: Mapping[str, Any], context: Mapping[str, Any]) -> Landing:
    """Where a context (to_context()'s data) lands in one rollout of a flag."""
    kind = rollout.get("contextKind") or "user"
    experiment = rollout.get("kind") == "experiment"
    by = "key" if experiment else str(rollout.get("bucketBy") or "key").removeprefix("/")
    part = context.get(kind)
    hashed = None if part is None else _hashable(part.get(by))
    bucket = None if part is None else 0.0
    if hashed is not None:
        bucket = bucket_of(flag["key"], str(flag.get("salt") or ""), hashed, rollout.get("seed"))
    entry, low, high = _entry(rollout["variations"], bucket)
    return Landing(kind, by, hashed, bucket, entry, low, high)


def _hashable(value: Any) -> str | None:
    """Text and whole numbers; anything else lands in bucket 0."""
    return str(value) if isinstance(value, str) or type(value) is int else None


def _entry(entries: list[dict[str, Any]], bucket: float | None) -> tuple[int, float, float]:
    """The entry whose share holds the bucket: the first without a bucket, the last past all shares."""
    low = 0.0
    for index, entry in enumerate(entries):
        high = low + entry["weight"] / 100_000
        if bucket is None or bucket < high or index == len(entries) - 1:
            return index, low, high if bucket is None or bucket < high else 1.0
        low = high
    raise ValueError("a rollout has at least one entry")
