"""The matrix products of a training step: their shapes, the number of operations, and the speed of a device."""

from __future__ import annotations

import statistics
import time

import torch

from common.config import ModelConfig


def product_shapes(model: ModelConfig, tokens: int) -> list[tuple[int, int, int]]:
    """Return (rows, inner width, columns) of each matrix product of one micro-batch, forward and backward."""
    D, F, V = model.d_model, model.ffn_dim, model.vocab_size
    layer = [(tokens, D, D)] * 4 + [(tokens, D, F), (tokens, F, D)]
    forward = layer * model.num_layers + [(tokens, D, V)]
    backward = [shape for n, k, m in forward for shape in ((n, m, k), (k, n, m))]
    return forward + backward


def operations_per_token(model: ModelConfig) -> float:
    """Return the floating-point operations of forward and backward pass per token, with causal attention."""
    D, L = model.d_model, model.num_layers
    weights = L * (4 * D * D + 2 * D * model.ffn_dim) + D * model.vocab_size
    return 6.0 * weights + 6.0 * L * model.context_length * D


def product_rate(device: torch.device, shapes: list[tuple[int, int, int]]) -> float:
    """Return the operations per second of bfloat16 matrix products of these shapes, each distinct shape timed once."""
    times = {shape: product_seconds(device, *shape) for shape in set(shapes)}
    return sum(2.0 * n * k * m for n, k, m in shapes) / sum(times[shape] for shape in shapes)


def product_seconds(device: torch.device, n: int, k: int, m: int) -> float:
    """Return the seconds of one matrix product (n, k) × (k, m): the median of five measurements."""
    left = torch.randn(n, k, device=device, dtype=torch.bfloat16)
    right = torch.randn(k, m, device=device, dtype=torch.bfloat16)
    out = torch.mm(left, right)
    repetitions = 20 if device.type == "cuda" else 1
    found = []
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(repetitions):
            torch.mm(left, right, out=out)
        synchronize(device)
        found.append((time.perf_counter() - started) / repetitions)
    return statistics.median(found)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
