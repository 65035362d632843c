"""The random stream of generators: Philox, keyed by the seed and counted by the choice's own id.

A draw depends on nothing but (seed, choice id, alternative): editing one choice never reshuffles the others, and every
machine draws alike. Philox4x32-10 is of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gensynth.ir import UsageError

__all__ = ["choice_counters", "gumbel", "philox"]

Words = npt.NDArray[np.uint64]
"""32-bit words, held in 64 bits so that products fit."""

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64).reshape(2, 1, 1)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint64).reshape(2, 1, 1)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counters: Words, keys: Words) -> Words:
    """Returns Philox4x32-10 of `counters`, shape [4, n], under each of `keys`, shape [2, k]: shape [4, k, n]."""
    even, odd = counters[0::2, None, :], counters[1::2, None, :]
    for number in range(10):
        round_keys = (keys[:, :, None] + np.uint64(number) * _WEYL) & _LOW
        product = (even * _MULTIPLIERS)[::-1]
        even, odd = (product >> _SHIFT) ^ odd ^ round_keys, product & _LOW
    return np.stack([even[0], odd[0], even[1], odd[1]])


def choice_counters(identifiers: Sequence[str], alternatives: int) -> Words:
    """Returns the counters of choices, shape [4, choices * alternatives].

    A counter is two words of the id's BLAKE2b digest, the alternative, and 0.
    """
    digests = [hashlib.blake2b(identifier.encode(), digest_size=8).digest() for identifier in identifiers]
    words = np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2).T.astype(np.uint64)
    counters = np.zeros((4, len(identifiers) * alternatives), np.uint64)
    counters[:2] = np.repeat(words, alternatives, axis=1)
    counters[2] = np.tile(np.arange(alternatives, dtype=np.uint64), len(identifiers))
    return counters


def gumbel(counters: Words, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns standard Gumbel noise, shape [seeds, n], for counters of shape [4, n].

    Raises:
        UsageError: a seed is not an integer from 0 to 2^64 - 1.
    """
    for seed in seeds:
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"seed {seed} is out of range", hint="a seed is an integer from 0 to 2^64 - 1")
    keys = np.array([[seed & 0xFFFFFFFF for seed in seeds], [seed >> 32 for seed in seeds]], np.uint64)
    bits = philox(counters, keys)
    # 52 bits and a half: exact in float64, and never 0 or 1, where the noise would be infinite.
    uniform = (((bits[0] << np.uint64(20)) | (bits[1] >> np.uint64(12))).astype(np.float64) + 0.5) * 2.0**-52
    noise: npt.NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise
