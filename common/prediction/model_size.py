"""Counts the parameters of a language model, and the FLOPs that a training spends per token.

Symbols: D width, F width of the feed-forward layer, L layers, V vocabulary, T positions of a sequence, G hidden width
of a gate.
"""

from __future__ import annotations

from common.config.model import ModelConfig

MUON_ITERATIONS = 5
"""Number of iterations with which `common.training.muon` orthogonalises a matrix, as in the original."""


def matmul_parameters(model: ModelConfig) -> int:
    """Return the number of weights that take part in a matrix product for every token.

    Per layer, these are the four projections of attention (4 D²) and the two of the feed-forward layer (2 D F); then
    the vocabulary head (D V). The embedding is a table, and the gates are computed once per sequence, so neither
    counts.
    """
    return block_matrix_weights(model) + model.d_model * model.vocab_size


def block_matrix_weights(model: ModelConfig) -> int:
    """Return the number of weights that Muon trains: all matrices of the blocks without those of the gates."""
    D = model.d_model
    return model.num_layers * (4 * D * D + 2 * D * model.ffn_dim)


def muon_flops(model: ModelConfig) -> float:
    """Return the FLOPs of the matrix products of one update by Muon.

    Each of the iterations has two products of 2 n² m FLOPs and one of 2 n³ for a matrix whose smaller side is n
    (`common.training.muon.orthogonalize`).
    """
    D, F = model.d_model, model.ffn_dim

    def products(rows: int, columns: int) -> float:
        n, m = sorted((rows, columns))
        return MUON_ITERATIONS * (4.0 * n * n * m + 2.0 * n**3)

    return model.num_layers * (4 * products(D, D) + 2 * products(D, F))


def parameters(model: ModelConfig) -> int:
    """Return the number of all parameters of `common.model.TransformerLM`.

    Embedding V D and head D V + V; final layer norm 2 D. Per layer: four projections D² + D each; feed-forward layer
    2 D F + F + D; two layer norms 2 D each; two gates, each with g inputs (`gate_dim`): g G + G + G D + D. Some
    architectures have no biases of projections, feed-forward layer and head, no weights of norms, or no gates.
    """
    D, F, V, G = model.d_model, model.ffn_dim, model.vocab_size, model.gate_hidden_dim
    norm = 2 * D if model.norm == "layernorm" else 0
    gate = model.gate_dim * G + G + G * D + D if model.gates else 0
    layer = 4 * D * D + 2 * D * F + 2 * norm + 2 * gate
    biases = model.num_layers * (4 * D + F + D) + V if model.bias else 0
    return V * D + model.num_layers * layer + norm + D * V + biases


def flops_per_token(model: ModelConfig, positions: int | None = None) -> float:
    """Return the FLOPs of forward and backward pass per token of a sequence with `positions` tokens.

    `positions` is T; None means the context length. A matrix product with W weights takes 2 W FLOPs forward (a
    multiplication and an addition per weight) and 4 W backward, for the gradients of inputs and weights: 6 W in total
    (Kaplan et al. 2020, Scaling Laws for Neural Language Models, section 2.1). Attention multiplies queries with keys
    and probabilities with values, 12 D T per layer (Chowdhery et al. 2022, PaLM, appendix B). Because of the causal
    mask, a token attends to T / 2 positions on average, so half of that counts.
    """
    length = model.context_length if positions is None else positions
    return 6.0 * matmul_parameters(model) + 12.0 * model.num_layers * model.d_model * length / 2
