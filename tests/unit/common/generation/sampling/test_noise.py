"""The noise of a sequence equals that of a known generator; it is uniform and uncorrelated."""

from __future__ import annotations

import torch

from common.generation.sampling.noise import row_noise
from tests.unit.common.generation.slow_noise import slow_noise

torch.set_num_threads(1)


def test_numbers_equal_those_of_whole_numbers_in_python() -> None:
    cases = [(0, 0), (1, 0), (1, 1), (2**31, 4095), (2**63 - 1, 17)]
    seeds, steps = (torch.tensor(column) for column in zip(*cases, strict=True))
    found = row_noise(seeds, steps)
    for column, (seed, step) in enumerate(cases):
        assert found[:, column].tolist() == [slow_noise(seed, step, stream) for stream in (0, 1)]


def test_neighbouring_seeds_and_steps_are_spread_evenly_and_unrelated() -> None:
    seeds, steps = torch.arange(200).repeat_interleave(200), torch.arange(200).repeat(200)
    numbers = row_noise(seeds, steps)
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts = torch.histc(numbers.flatten(), 64, 0, 1)
    # Chi-square with 63 degrees of freedom exceeds 120 with a probability of 2e-5.
    assert ((counts - counts.mean()).square() / counts.mean()).sum() < 120
    table = numbers[1].view(200, 200) - 0.5
    related = [(table[1:] * table[:-1]).mean(), (table[:, 1:] * table[:, :-1]).mean()]
    related.append(((numbers[0] - 0.5) * (numbers[1] - 0.5)).mean())
    assert (
        max(abs(float(value)) for value in related) < 0.003
    )  # The products have the mean 1/12 for equal numbers, and 0 ± 0.0004 (standard deviation) for independent ones.
