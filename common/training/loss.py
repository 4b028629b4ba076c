"""Computes the next-token cross-entropy of the language model.

On a CPU, the (B·T, V) logits are never in memory all at once (`common.training.vocabulary_loss`). On CUDA they are,
because torch.compile fuses their computation with the loss.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from common.model import TransformerLM
from common.training.vocabulary_loss import vocabulary_loss


def summed_loss(model: TransformerLM, input_ids: Tensor, targets: Tensor, modulation: Tensor | None = None) -> Tensor:
    """Return the sum of −ln p(target) over all positions in nats, a scalar.

    Shapes: `input_ids` and `targets` (B, T) int64, `modulation` (B, 1).
    """
    hidden = model.hidden_states(input_ids, modulation).flatten(0, 1)
    labels = targets.flatten()
    if hidden.device.type != "cpu":
        return functional.cross_entropy(model.project(hidden), labels, reduction="sum")
    head = model.output_projection
    return vocabulary_loss(hidden, head.weight, head.bias, labels, model.config.logit_softcap)
