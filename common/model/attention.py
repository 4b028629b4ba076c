"""Causal self-attention, the two ways a decoder needs it: many new positions at once, or one per row.

Scale 1/sqrt(K), torch's scaled_dot_product_attention (flash where the device has it). The projections live in the
block, because the checkpoint format names them there.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) to (B, H, T, K)."""
    B, T, D = x.shape
    return x.view(B, T, num_heads, D // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, K) to (B, T, D)."""
    B, H, T, K = x.shape
    return x.transpose(1, 2).reshape(B, T, H * K)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Each position attends to itself and those before it; q, k, v and the result are (B, H, T, K)."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """One query per row, (B, H, 1, K), over cached k and v (B, H, S, K) where mask (B, 1, 1, S) is true."""
    return scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
