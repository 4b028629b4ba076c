"""Random numbers of a running batch as a function of (seed, step, stream), without any state.

The function is SplitMix64 (Steele, Lea, Flood 2014) over a counter, in torch's wrapping int64, on the device and
without a host sync. Therefore a sequence gets the same numbers alone and in any batch, and generations with the same
seed use the same noise for their tokens in all gating modes.
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

_SEED_BITS = 31
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
STREAMS = 2
"""Number of random numbers per step: number 0 is for the modulation, number 1 for the token."""


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def row_noise(seeds: Tensor, steps: Tensor) -> Tensor:
    """Return uniform numbers (STREAMS, B) float32 in [0, 1), 24 bits each, for seeds and steps (B,) int64."""
    streams = torch.arange(STREAMS, device=seeds.device)[:, None]
    state = _mix(seeds * _signed(_GOLDEN)) + (steps * STREAMS + streams + 1) * _signed(_GOLDEN)
    return _shift(_mix(state), 40).float() * 2.0**-24


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _signed(_MIX[0])
    state = (state ^ _shift(state, 27)) * _signed(_MIX[1])
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Return `state` shifted right, filled with zeros; torch's own operator keeps the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def fresh_seed() -> int:
    """Return a random seed from the operating system, small enough for every wire format."""
    return secrets.randbits(_SEED_BITS)
