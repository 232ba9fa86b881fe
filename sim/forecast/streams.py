"""Random streams by their purpose: what is drawn for one never shifts what is drawn for another."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The same numbers for the same seed and purpose, whatever else was drawn."""
    key = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
