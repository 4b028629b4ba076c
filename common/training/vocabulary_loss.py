"""The cross-entropy of the vocabulary head on a CPU, with its gradients, without all (N, V) logits in memory.

The head has most of the multiplications of a small model, and between them the logits are read and written several
times. Here the logits (V, n) of n positions are computed in blocks of the vocabulary that stay in the processor's
cache until maximum, exponential and sum are taken. A block keeps e = exp(logits − m) with m, the largest logit of each
position in this block. When the sums of all blocks are known, the probabilities are e · s with s = exp(m −
logsumexp). As s depends only on block and position, it scales the small factor of the two products of the gradient, and
e is not read again for it.

With p the probabilities, Y the one-hot targets: d/dx = (p − Y) W, d/dW = (p − Y)ᵀ x, d/db = Σ (p − Y).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

LOGITS_PER_CHUNK = 1 << 25
"""Largest number of exponentials that are kept at a time for the gradients: 128 MiB of float32."""
LOGITS_PER_BLOCK = 1 << 18
"""Number of logits that stay in the cache: 1 MiB of float32."""


def vocabulary_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of −ln p(target) over N positions in nats, a scalar.

    Shapes: hidden (N, D), weight (V, D), bias (V,), targets (N,) int64. Under autocast, the matrix products have its
    dtype, and sums have the dtype of `bias`. The forward pass also computes the gradients, so `backward` can be called
    once.
    """
    return _VocabularyLoss.apply(hidden, weight, bias, targets)  # type: ignore[no-any-return, no-untyped-call]


class _VocabularyLoss(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        head = _Head(weight, weight.to(dtype), bias)
        gradients = [torch.zeros_like(each) for each in (hidden, weight, bias)] if any(ctx.needs_input_grad) else None
        total = hidden.new_zeros((), dtype=torch.float64)
        with torch.autocast("cpu", enabled=False):
            for start, end in _chunks(len(targets), len(bias)):
                x, labels = hidden[start:end].to(bias.dtype), targets[start:end]
                log_sums, kept = _forward(head, x, keep=gradients is not None)
                total += (log_sums - (x * weight[labels]).sum(1) - bias[labels]).sum(dtype=torch.float64)
                if gradients is not None:
                    _backward(head, x, labels, log_sums, kept, gradients[0][start:end], gradients[1], gradients[2])
        ctx.gradients = gradients
        return total.to(bias.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of the vocabulary loss can be computed once; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        return *(each.mul_(grads[0]) for each in gradients), None


class _Head(NamedTuple):
    weight: Tensor
    """(V, D)."""
    product_weight: Tensor
    """The weight in the dtype of the matrix products."""
    bias: Tensor
    """(V,)."""

    def blocks(self, positions: int) -> Iterator[slice]:
        """Yield the ranges of the vocabulary of which the logits of `positions` positions are computed at a time."""
        V, size = len(self.bias), max(16, LOGITS_PER_BLOCK // positions)
        return (slice(start, min(start + size, V)) for start in range(0, V, size))


class _Block(NamedTuple):
    """The logits of one block of the vocabulary."""

    range: slice
    maximum: Tensor
    """The largest logit of each position, (n,)."""
    exponentials: Tensor
    """exp(logits − maximum), (v, n), in the dtype of the matrix products."""


def _chunks(positions: int, vocabulary: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of positions of about equal size."""
    count = max(1, math.ceil(positions * vocabulary / LOGITS_PER_CHUNK))
    size = math.ceil(positions / count)
    return ((start, min(start + size, positions)) for start in range(0, positions, size))


def _forward(head: _Head, x: Tensor, *, keep: bool) -> tuple[Tensor, list[_Block]]:
    """Return the logsumexp (n,) of the logits for states x (n, D), and the blocks if they are to be kept."""
    n, dtype = len(x), head.product_weight.dtype
    x_product = x.to(dtype).t().contiguous()
    storage = _storage(len(head.bias) * n, dtype).view(-1, n) if keep else None
    blocks, sums = [], []
    for part in head.blocks(n):
        out = storage[part] if storage is not None and dtype == x.dtype else None
        logits = torch.mm(head.product_weight[part], x_product, out=out).to(x.dtype).add_(head.bias[part, None])
        maximum = logits.amax(0)
        logits.sub_(maximum).exp_()
        sums.append(logits.sum(0).log_().add_(maximum))
        if storage is not None:
            blocks.append(_Block(part, maximum, logits if out is not None else storage[part].copy_(logits)))
    return torch.stack(sums).logsumexp(0), blocks


def _backward(
    head: _Head,
    x: Tensor,
    labels: Tensor,
    log_sums: Tensor,
    blocks: list[_Block],
    d_x: Tensor,
    d_weight: Tensor,
    d_bias: Tensor,
) -> None:
    """Add the gradients of a chunk to `d_weight` and `d_bias`, and write that of its states to `d_x`."""
    dtype = head.product_weight.dtype
    for part, maximum, exponentials in blocks:
        scale = (maximum - log_sums).exp_()
        scaled = (x * scale[:, None]).to(dtype)
        if dtype == x.dtype:
            d_weight[part].addmm_(exponentials, scaled)
            d_bias[part].addmv_(exponentials, scale)
        else:
            d_weight[part] += exponentials @ scaled
            d_bias[part] += exponentials.float() @ scale
        d_x.addcmul_((exponentials.t() @ head.product_weight[part]).to(x.dtype), scale[:, None])
    d_x -= head.weight[labels]
    d_weight.index_add_(0, labels, x, alpha=-1)
    d_bias.index_add_(0, labels, torch.ones_like(log_sums), alpha=-1)


_kept = threading.local()


def _storage(count: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor of `count` elements, which the next call in this thread returns again.

    Memory that is allocated anew at each chunk costs a page fault per 4 KiB, 2 % of a step.
    """
    storage: Tensor | None = getattr(_kept, "storage", None)
    if storage is None or storage.numel() < count or storage.dtype != dtype:
        _kept.storage = None  # freed before the new allocation
        storage = _kept.storage = torch.empty(count, dtype=dtype)
    return storage[:count]
