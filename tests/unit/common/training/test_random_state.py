"""Random states are restored exactly, from a file that contains no code."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from common.training.random_state import capture_random_state, restore_random_state


def sample() -> tuple[float, float, float, float, float]:
    return (
        float(torch.rand(())),
        float(torch.randn(())),
        float(np.random.normal()),
        random.random(),
        random.gauss(0, 1),
    )


def test_every_generator_repeats_after_a_round_trip_through_a_file(tmp_path: Path) -> None:
    sample()
    torch.save(capture_random_state(), tmp_path / "state.pt")
    expected = [sample() for _ in range(3)]
    assert restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [sample() for _ in range(3)] == expected


def test_a_different_number_of_devices_is_reported() -> None:
    state = capture_random_state()
    state["cuda"] = [*state["cuda"], torch.get_rng_state()]
    assert not restore_random_state(state)
