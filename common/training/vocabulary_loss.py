"""The cross-entropy of the vocabulary head on a CPU, with its gradients, without all (N, V) logits in memory.

The head has most of the multiplications of a small model, and between them the logits are read and written several
times. Here the logits (V, n) of n positions are computed in blocks of the vocabulary that stay in the processor's
cache until maximum, exponential and sum are taken. A block keeps e = exp(logits − m) with m, the largest logit of each
position in this block. When the sums of all blocks are known, the probabilities are e · s with s = exp(m −
logsumexp). The gradients need matrix products of e · s with x and with W. As s depends only on block and position, it
scales x and the product of e with W, which are smaller than e; so e is not read and written once more only to scale it.

With p the probabilities, Y the one-hot targets: d/dx = (p − Y) W, d/dW = (p − Y)ᵀ x, d/db = Σ (p − Y).

A soft cap c replaces each logit z by l = c · tanh(z / c). Its derivative, 1 − (l / c)², is a factor of (p − Y); a block
multiplies it into e after the sum of e is taken.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from common.model.cpu_threads import map_on_cores, split_evenly

LOGITS_PER_CHUNK = 1 << 25
"""Largest number of exponentials that are kept at a time for the gradients: 128 MiB of float32."""
LOGITS_PER_BLOCK = 1 << 18
"""Number of logits that stay in the cache of a core: 1 MiB of float32."""


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return the sum of −ln p(target) over N positions in nats, a scalar.

    Shapes: hidden (N, D), weight (V, D), bias (V,) or None, targets (N,) int64. `softcap` limits the logits z to
    softcap · tanh(z / softcap). Under autocast, the matrix products have its dtype, and sums have the dtype of
    `weight`. The forward pass also computes the gradients, so `backward` can be called only once.
    """
    apply: Callable[..., Tensor] = _VocabularyLoss.apply
    # Inside `apply`, neither the gradient mode nor `needs_input_grad` shows whether the caller is under `no_grad`.
    return apply(hidden, weight, bias, targets, softcap, torch.is_grad_enabled())


class _VocabularyLoss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        gradients_enabled: bool,
    ) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
        head = _Head(weight, weight.to(dtype), bias, softcap)
        gradients = None
        if gradients_enabled and any(ctx.needs_input_grad):
            d_bias = None if bias is None else torch.zeros_like(bias)
            gradients = _Gradients(torch.zeros_like(hidden), torch.zeros_like(weight), d_bias)
        total = hidden.new_zeros((), dtype=torch.float64)
        with torch.autocast("cpu", enabled=False):
            for chunk in _chunks(len(targets), len(weight)):
                rows = None if gradients is None else gradients._replace(hidden=gradients.hidden[chunk])
                total += _chunk_loss(head, hidden[chunk].to(weight.dtype), targets[chunk], rows)
        ctx.gradients = gradients
        return total.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of the vocabulary loss can be computed once; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        return *(None if each is None else each.mul_(grads[0]) for each in gradients), None, None, None


class _Head(NamedTuple):
    weight: Tensor
    """(V, D)."""
    product_weight: Tensor
    """The weight in the dtype of the matrix products."""
    bias: Tensor | None
    """(V,)."""
    softcap: float | None

    def target_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (n,) of the targets for states x (n, D)."""
        logits = (x * self.weight[labels]).sum(1)
        if self.bias is not None:
            logits += self.bias[labels]
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


class _Gradients(NamedTuple):
    hidden: Tensor
    """(N, D), or (n, D) for the positions of a chunk."""
    weight: Tensor
    """(V, D)."""
    bias: Tensor | None
    """(V,)."""


class _Block(NamedTuple):
    """The logits of one block of v entries of the vocabulary, for n positions."""

    entries: slice
    maximum: Tensor
    """The largest logit of each position, (n,)."""
    log_sum: Tensor
    """The logsumexp of the logits of each position, (n,)."""
    exponentials: Tensor | None
    """exp(logits − maximum), (v, n), in the dtype of the matrix products, with a soft cap times its derivative; None
    without gradients."""


def _chunks(positions: int, vocabulary: int) -> list[slice]:
    """Return ranges of positions of about equal size."""
    return split_evenly(positions, min(positions, math.ceil(positions * vocabulary / LOGITS_PER_CHUNK)))


def _chunk_loss(head: _Head, x: Tensor, labels: Tensor, gradients: _Gradients | None) -> Tensor:
    """Return the summed loss of n positions in float64, for states x (n, D) and labels (n,).

    Add its gradients to `gradients`, unless that is None.
    """
    V, dtype = len(head.weight), head.product_weight.dtype
    inputs = x.to(dtype).t().contiguous()
    storage = None if gradients is None else _storage(V * len(x), dtype).view(V, len(x))
    parts = split_evenly(V, torch.get_num_threads())
    kept = map_on_cores(lambda part: list(_forward(head, inputs, storage, part)), parts)
    log_sums = torch.stack([block.log_sum for blocks in kept for block in blocks]).logsumexp(0)
    logits = head.target_logits(x, labels)
    if gradients is not None:
        for d_x in map_on_cores(lambda blocks: _backward(head, x, log_sums, blocks, gradients), kept):
            gradients.hidden.add_(d_x)
        if head.softcap is None:
            gradients.hidden.sub_(head.weight[labels])
            gradients.weight.index_add_(0, labels, x, alpha=-1)
            slope = torch.ones_like(logits)
        else:
            slope = 1.0 - (logits / head.softcap).square()
            gradients.hidden.addcmul_(head.weight[labels], slope[:, None], value=-1)
            gradients.weight.index_add_(0, labels, x * slope[:, None], alpha=-1)
        if gradients.bias is not None:
            gradients.bias.index_add_(0, labels, slope, alpha=-1)
    return (log_sums - logits).sum(dtype=torch.float64)


def _forward(head: _Head, inputs: Tensor, storage: Tensor | None, part: slice) -> Iterator[_Block]:
    """Yield the blocks of a part of the vocabulary for states `inputs` (D, n).

    The exponentials are written to `storage` (V, n) if it is not None.
    """
    dtype, n, cap = head.weight.dtype, inputs.shape[1], head.softcap
    size = max(16, LOGITS_PER_BLOCK // n)
    # All blocks without gradients use the same memory, because new memory costs more time than the product.
    shared = inputs.new_empty(size, n) if storage is None else None
    for start in range(part.start, part.stop, size):
        entries = slice(start, min(start + size, part.stop))
        out: Tensor | None = None
        if shared is not None:
            out = shared[: entries.stop - start]
        elif storage is not None and inputs.dtype == dtype:
            out = storage[entries]
        logits = torch.mm(head.product_weight[entries], inputs, out=out).to(dtype)
        if head.bias is not None:
            logits.add_(head.bias[entries, None])
        slope = None
        if cap is not None:
            logits.div_(cap).tanh_()
            slope = None if storage is None else logits.square().neg_().add_(1.0)
            logits.mul_(cap)
        maximum = logits.amax(0)
        logits.sub_(maximum).exp_()
        log_sum = logits.sum(0).log_().add_(maximum)
        if slope is not None:
            logits.mul_(slope)
        kept = None if storage is None else logits if out is not None else storage[entries].copy_(logits)
        yield _Block(entries, maximum, log_sum, kept)


def _backward(head: _Head, x: Tensor, log_sums: Tensor, blocks: list[_Block], gradients: _Gradients) -> Tensor:
    """Add Σ p x and Σ p to the gradients of the blocks' entries; return Σ p W (n, D) over these entries."""
    product_dtype, d_weight, d_bias = head.product_weight.dtype, gradients.weight, gradients.bias
    d_x = torch.zeros_like(x)
    for entries, maximum, _, exponentials in blocks:
        assert exponentials is not None
        scale = (maximum - log_sums).exp_()
        scaled = (x * scale[:, None]).to(product_dtype)
        if product_dtype == x.dtype:
            d_weight[entries].addmm_(exponentials, scaled)
        else:
            d_weight[entries] += exponentials @ scaled
        if d_bias is not None:
            d_bias[entries].addmv_(exponentials.to(x.dtype), scale)
        d_x.addcmul_((exponentials.t() @ head.product_weight[entries]).to(x.dtype), scale[:, None])
    return d_x


_kept = threading.local()


def _storage(count: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor of `count` elements, which the next call in this thread returns again.

    Memory that is allocated anew at each chunk costs a page fault per 4 KiB, which was 2 % of a step.
    """
    storage: Tensor | None = getattr(_kept, "storage", None)
    if storage is None or storage.numel() < count or storage.dtype != dtype:
        _kept.storage = None  # freed before the new allocation
        storage = _kept.storage = torch.empty(count, dtype=dtype)
    return storage[:count]
