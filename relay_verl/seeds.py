"""A seed for every sample, from the job's seed and the sample's name: the same in whatever order samples are made."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: object) -> int:
    """A number below 2^31 that depends on all arguments.

    >>> derive_seed(0, "tiny-mul-7-8", 3) == derive_seed(0, "tiny-mul-7-8", 3) != derive_seed(1, "tiny-mul-7-8", 3)
    True
    """
    digest = hashlib.sha256("\0".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def sample_seed(seed: int | None, *names: object) -> dict[str, int]:
    """The engine's sampling parameter `seed` of one sample; nothing without a seed."""
    return {} if seed is None else {"seed": derive_seed(seed, *names)}
