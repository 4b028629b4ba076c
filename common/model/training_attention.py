"""Causal self-attention with rotary embedding and dropout, forward and backward, for training on a CPU.

torch's attention for a CPU has no dropout, so with dropout it writes several matrices (B, H, T, T) to memory. Here the
queries of one sequence are computed in parts, one at a time, so that the matrices stay in the processor's cache, and
keys after the last query of a part are left out of its matrices. The gradient is that of softmax attention
(Vaswani et al., 2017) with dropout on the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from common.model.cpu_threads import map_on_cores
from common.model.dropout import Rate, comparable, rate, zero_dropped
from common.model.norm import inverse_rms, rms_norm_gradient

QUERIES_PER_PART = 128
"""Number of queries whose attention probabilities are computed at a time."""


def training_attention(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    integers: Tensor | None,
    p: float,
    *,
    qk_norm: bool = False,
) -> Tensor:
    """Return the attention's result (B, T, D), before the output projection, for qkv (B, T, 3·D).

    `qkv` has the queries, keys and values of all heads one after the other; rotary tables (T, K). `integers`
    (B, n) are the random integers of the dropout with probability `p`, where n is the result of `integers_needed`; None
    means no dropout. With `qk_norm`, queries and keys of each head are divided by their root mean square.
    """
    apply: Callable[..., Tensor] = _Attention.apply
    return apply(qkv, cos, sin, num_heads, integers, p, qk_norm)


def integers_needed(length: int, num_heads: int) -> int:
    """Return the number of random integers for the dropout of one sequence of `length` tokens in one layer."""
    return num_heads * sum((end - start) * end for start, end in _parts(length))


def _parts(length: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + QUERIES_PER_PART, length)) for start in range(0, length, QUERIES_PER_PART))


@lru_cache(maxsize=4)
def _causal_mask(length: int, dtype: torch.dtype) -> Tensor:
    """Return (T, T) with 0 where a query may attend to a key, otherwise −inf."""
    return torch.full((length, length), -math.inf, dtype=dtype).triu(1)


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        num_heads: int,
        integers: Tensor | None,
        p: float,
        qk_norm: bool,
    ) -> Tensor:
        B, T, width = qkv.shape
        D, H = width // 3, num_heads
        K = D // H
        dropout = rate(p) if integers is not None else None
        mask, scale = _causal_mask(T, qkv.dtype), 1.0 / math.sqrt(K)
        heads = qkv.new_empty(B, 3 * H, T, K)
        inverse = qkv.new_empty(B, 2 * H, T, 1) if qk_norm else None
        probabilities = qkv.new_empty(B, integers_needed(T, H))
        out = qkv.new_empty(B, T, D)

        def attend(b: int) -> None:
            _rotate(qkv[b].view(T, 3 * H, K).transpose(0, 1), heads[b], cos, sin, 2 * H)
            if inverse is not None:  # a rotation does not change the root mean square
                inverse[b] = inverse_rms(heads[b, : 2 * H])
                heads[b, : 2 * H].mul_(inverse[b])
            q, k, v = heads[b].view(3, H, T, K)
            result = out[b].view(T, H, K).transpose(0, 1)
            for start, end, P, r in _each_part(T, H, probabilities[b], None if integers is None else integers[b]):
                scores = torch.baddbmm(mask[start:end, :end], q[:, start:end], k[:, :end].transpose(1, 2), alpha=scale)
                torch.softmax(scores, -1, out=P)
                kept = P if dropout is None else zero_dropped(P, r, dropout.limit, out=scores)
                torch.mul(kept @ v[:, :end], 1.0 if dropout is None else dropout.scale, out=result[:, start:end])

        map_on_cores(attend, range(B))
        ctx.save_for_backward(heads, inverse, probabilities, cos, sin, integers)
        ctx.dropout, ctx.num_heads = dropout, H
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        heads, inverse, probabilities, cos, sin, integers = ctx.saved_tensors
        dropout: Rate | None = ctx.dropout
        B, _, T, K = heads.shape
        H = ctx.num_heads
        scale = 1.0 / math.sqrt(K)
        d_qkv = heads.new_empty(B, T, 3 * H * K)

        def differentiate(b: int) -> None:
            q, k, v = heads[b].view(3, H, T, K)
            d_heads = heads.new_empty(3, H, T, K)
            d_q, d_k, d_v = d_heads
            d_heads[1:].zero_()
            d_out = grads[0][b].view(T, H, K).transpose(0, 1) * (1.0 if dropout is None else dropout.scale)
            for start, end, P, r in _each_part(T, H, probabilities[b], None if integers is None else integers[b]):
                part = d_out[:, start:end]
                r = comparable(r, P.dtype) if dropout is not None else r  # converted once for two uses
                kept = P if dropout is None else zero_dropped(P, r, dropout.limit)
                d_v[:, :end].baddbmm_(kept.transpose(1, 2), part)
                d_p = part @ v[:, :end].transpose(1, 2)
                if dropout is not None:
                    zero_dropped(d_p, r, dropout.limit, out=d_p)
                d_scores = torch.ops.aten._softmax_backward_data(d_p, P, -1, P.dtype)
                torch.mul(d_scores @ k[:, :end], scale, out=d_q[:, start:end])
                d_k[:, :end].baddbmm_(d_scores.transpose(1, 2), q[:, start:end], alpha=scale)
            if inverse is not None:
                rotated = d_heads[:2].view(2 * H, T, K)
                rotated.copy_(rms_norm_gradient(rotated, heads[b, : 2 * H], inverse[b]))
            # The inverse of a rotation is the rotation by the negative angle.
            target = d_qkv[b].view(T, 3 * H, K).transpose(0, 1)
            _rotate(d_heads.view(3 * H, T, K), target, cos, -sin, 2 * H)

        map_on_cores(differentiate, range(B))
        return d_qkv, None, None, None, None, None, None


def _rotate(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, rotated: int) -> None:
    """Write x (n, T, K) to `out`, and rotate the first `rotated` of the n heads by the tables (T, K)."""
    half = x.shape[-1] // 2
    cos, sin = cos[:, :half], sin[:, :half]
    a, b = x[:rotated, :, :half], x[:rotated, :, half:]
    torch.mul(a, cos, out=out[:rotated, :, :half]).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=out[:rotated, :, half:]).addcmul_(a, sin)
    out[rotated:].copy_(x[rotated:])


def _each_part(
    length: int, num_heads: int, probabilities: Tensor, integers: Tensor | None
) -> Iterator[tuple[int, int, Tensor, Any]]:
    """Yield the range of queries, the probabilities (H, queries, keys) and the random integers of each part."""
    used = 0
    for start, end in _parts(length):
        shape = (num_heads, end - start, end)
        stop = used + math.prod(shape)
        yield (
            start,
            end,
            probabilities[used:stop].view(shape),
            None if integers is None else integers[used:stop].view(shape),
        )
        used = stop
