"""Predicts the largest memory that a pretraining uses: host memory on a CPU, memory of the GPU on CUDA.

The coefficients are measured with the reference architecture and used for every architecture.

Symbols: P parameters, N = B T tokens of a micro-batch, L layers, D width, F feed-forward width, H heads, V vocabulary.
"""

from __future__ import annotations

from common.config.lm import LMConfig
from common.prediction.calibration import MemoryCost
from common.prediction.model_size import block_matrix_weights, parameters

FLOAT = 4
"""Bytes of a float32 number; weights, gradients and Adam's moments are float32 in every precision."""


def peak_bytes(config: LMConfig, length: int, cost: MemoryCost, *, gpu: bool, checkpoint: bool = True) -> int:
    """Return the predicted peak in bytes of a training with sequences of `length` tokens.

    Permanent: the process itself, and 16 P for weights, gradients and Adam's two moments. Muon has one moment instead
    of two for the matrices of the blocks, and an average of the weights has 4 P more (`kept_bytes`). While a checkpoint
    is written in the background, the host holds a copy of all that except the gradients (`checkpoint` is False for a
    training that writes none before its end). Then the larger of two peaks:

    * the backward pass: what autograd saves, N (L (a D + b F + c H T) + e D) bytes with the measured coefficients of
      `MemoryCost`, and in addition either the loss (copies of the head's gradient, 4 V D each, and the logits that are
      computed at a time, at most N V)
      or the gradients of one block's activations, N (2 D + 2 F + 2 H T') float32 numbers, where T' is 0 if autograd
      saves nothing per position (fused attention);
    * a validation, which needs no gradients (4 P less) but has its own batch size: N' (2 F + 6 D) numbers, and N' V
      logits if the loss computes all at once.
    """
    model, training = config.model, config.training
    D, F, H = model.d_model, model.ffn_dim, model.num_heads
    P = parameters(model)
    N = training.micro_batch_size * length
    layer = cost.per_width * D + cost.per_ffn * F + cost.per_attention * H * length
    saved = N * (model.num_layers * layer + cost.embedding * D)
    logits = N * model.vocab_size
    if cost.head_logits is not None:
        logits = min(logits, cost.head_logits)
    loss = cost.head_gradients * FLOAT * model.vocab_size * D + cost.head_per_logit * logits
    positions = length if cost.per_attention >= 1 else 0
    block = N * FLOAT * (2 * D + 2 * F + 2 * H * positions)
    kept = kept_bytes(config)
    step = FLOAT * P + kept + saved + max(loss, block)
    validated = config.evaluation.batch_size * length
    validation: float = kept + FLOAT * validated * (2 * F + 6 * D)
    if cost.head_logits is None:
        validation += cost.head_per_logit * validated * model.vocab_size
    copy = 0 if gpu or not checkpoint else kept
    return round(cost.base + copy + max(step, validation))


def kept_bytes(config: LMConfig) -> int:
    """Return the bytes of weights, moments of the optimiser and average of the weights, which a checkpoint holds."""
    P, training = parameters(config.model), config.training
    numbers = 3 * P
    if training.optimizer == "muon":
        numbers -= block_matrix_weights(config.model)
    if training.average_decay is not None:
        numbers += P
    return FLOAT * numbers
