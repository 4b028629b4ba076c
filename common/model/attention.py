"""Causal self-attention in the two forms that a decoder needs: for whole sequences, or for one new token per sequence.

Both use torch's scaled_dot_product_attention with scale 1/sqrt(K) (flash attention where the device supports it). The
projections are in the block (`common.model.block`), because the checkpoint format names them as parts of
the block.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Return x (B, T, D) as (B, H, T, K)."""
    B, T, D = x.shape
    return x.view(B, T, num_heads, D // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Return x (B, H, T, K) as (B, T, D)."""
    B, H, T, K = x.shape
    return x.transpose(1, 2).reshape(B, T, H * K)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return causal attention: each position attends to itself and earlier ones. All tensors are (B, H, T, K)."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return attention (B, H, 1, K) of one query per sequence to cached k and v (B, H, S, K).

    A query attends to the positions where mask (B, 1, 1, S) is true.
    """
    return scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
