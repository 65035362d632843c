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

__all__ = ["gumbel", "identifier_words", "philox"]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counters: npt.NDArray[np.uint64], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Returns Philox4x32-10 of `counters` (shape [4, n], 32-bit words held in uint64) under a key of two words."""
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(10):
        left = c0 * _MULTIPLIERS[0]
        right = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (right >> _SHIFT) ^ c1 ^ np.uint64(k0),
            right & _LOW,
            (left >> _SHIFT) ^ c3 ^ np.uint64(k1),
            left & _LOW,
        )
        k0 = (k0 + _WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def identifier_words(identifiers: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Returns two 32-bit words for each id, shape [2, n]: the start of its BLAKE2b digest."""
    words = [hashlib.blake2b(identifier.encode(), digest_size=8).digest() for identifier in identifiers]
    return np.frombuffer(b"".join(words), "<u4").reshape(-1, 2).T.astype(np.uint64)


def gumbel(words: npt.NDArray[np.uint64], alternatives: int, seed: int) -> npt.NDArray[np.float64]:
    """Returns standard Gumbel noise, shape [ids, alternatives], for the ids' words under a seed.

    Raises:
        UsageError: the seed is not an integer from 0 to 2^64 - 1.
    """
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} is out of range", hint="a seed is an integer from 0 to 2^64 - 1")
    count = words.shape[1]
    counters = np.zeros((4, count * alternatives), np.uint64)
    counters[0] = np.repeat(words[0], alternatives)
    counters[1] = np.repeat(words[1], alternatives)
    counters[2] = np.tile(np.arange(alternatives, dtype=np.uint64), count)
    bits = philox(counters, (seed & 0xFFFFFFFF, seed >> 32))
    uniform = ((bits[0] << np.uint64(21)) | (bits[1] >> np.uint64(11))).astype(np.float64)
    noise: npt.NDArray[np.float64] = -np.log(-np.log((uniform + 0.5) * 2.0**-53))
    return noise.reshape(count, alternatives)
