"""Counter-based randomness: every random number is a pure function of (seed, purpose, epoch, sample or step).

No generator carries state from one sample to the next, so order, workers, threads, a kill and a resume change nothing.
The mixer is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
OOPSLA 2014, figure 16).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def key(*parts: int | str) -> int:
    """64 bits from any numbers and names; different parts give unrelated keys."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = counters
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(stream: int, counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each counter of a stream (a `key`)."""
    with np.errstate(over="ignore"):
        return _mix(_mix(counters.astype(np.uint64) * _GAMMA + np.uint64(stream)) + _GAMMA)


def permutation(stream: int, length: int) -> NDArray[np.int64]:
    """The numbers 0 … length-1 in random order."""
    return np.argsort(bits(stream, np.arange(length)), kind="stable")


@dataclass(frozen=True)
class Draw:
    """The random numbers of one batch: row i belongs to sample `indices[i]` in this epoch, whatever the batch."""

    seed: int
    epoch: int
    indices: NDArray[np.int64]

    def uniform(self, purpose: str, count: int = 1) -> NDArray[np.float64]:
        """[B, count] in [0, 1), each purpose independent of the others."""
        stream = key(self.seed, "draw", purpose, self.epoch)
        counters = self.indices[:, None] * count + np.arange(count)
        return (bits(stream, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, purpose: str, count: int = 1) -> NDArray[np.float64]:
        """[B, count] standard normal (Box and Muller, 1958)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(purpose + "/radius", count)))
        angle = 2.0 * np.pi * self.uniform(purpose + "/angle", count)
        return radius * np.cos(angle)
