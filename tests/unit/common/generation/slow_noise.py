"""Computes the random numbers of a batch one by one, for comparison."""

from __future__ import annotations


def slow_noise(seed: int, step: int, stream: int) -> float:
    """Return the random number in [0, 1) for a step and a stream, from SplitMix64 in Python integers."""

    def mix(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    golden = 0x9E3779B97F4A7C15
    return float(mix((mix(seed * golden % 2**64) + (2 * step + stream + 1) * golden) % 2**64) >> 40) / 2**24
