"""One decoding step for every slot of a `StaticState`: sample a token, add it to the history, compute the next logits.

All tensor shapes follow from the `StepShape` and nothing waits for the device, so a step can be captured as a CUDA
graph and replayed; without a capture the results are the same. The maths is that of `slot_states`, `sampling.batch` and
`DecodingModel.decode`. Each sampling method that any slot needs is computed for all slots, and a mask selects the
results. Inactive slots are computed, too, but their state does not change. Between steps, `batch` prefills prompts and
drops the oldest tokens of full context windows.

Shapes: n slots, V vocabulary, G gates, H heads, K head width, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from common.controller import DecodingParameterRows, GatingPolicy, build_observations
from common.generation.cpu.packed_linear import BFloat16Linear, PackedLinear
from common.generation.cuda.state import FILTERS, StaticState
from common.generation.decoding_model import DecodingModel
from common.generation.sampling.batch import CandidateFilter, sample_full_distribution
from common.generation.sampling.sample import filter_largest, largest, pick, sampling_entropy, scored_logits
from common.generation.slot_states import EPISODE, MODULATION, SPANS


class StepShape(NamedTuple):
    """Everything that determines the tensor shapes and operations of a step. Each `StepShape` has its own graph."""

    slots: int
    """The number n of slots in the step, which are slots 0..n−1."""
    span: int
    """Number of positions that attention reads."""
    max_candidates: int
    """Number of candidates for slots with a top-k; at least the largest top-k of any slot."""
    top_log_probs: bool
    """Whether the most likely tokens are returned."""
    full_distribution: bool
    """Whether any slot samples from the full distribution, without top-k and top-p."""
    top_p_only: bool
    """Whether any slot has top-p without top-k, for which the vocabulary is sorted."""
    logit_adjustments: bool
    """Whether any slot has a logit bias, a presence penalty or a frequency penalty."""
    random_modulation: bool
    """Whether any slot has gating mode `random`."""
    gated: bool
    """Whether any slot passes a modulation to the model's gates."""
    policies: tuple[tuple[int, GatingPolicy, bool], ...]
    """For each policy in use: its number, the policy, and whether one of its slots samples actions."""


@torch.no_grad()
def static_step(model: DecodingModel, state: StaticState, shape: StepShape) -> None:
    """Sample and decode one token for slots 0..n−1; the token and its numbers are written to `state.outputs`."""
    n = shape.slots
    active = state.tokens_remaining[:n] > 0
    for_modulation, for_token = state.noise[:, state.slot_numbers[:n], state.steps[:n]]
    modulation = _pick_modulation(state, shape, for_modulation)
    parameters = _parameters(state, shape, modulation)
    token, log_prob, entropy, sampled_entropy = _sample(state, shape, parameters, for_token)
    modulation_f32 = modulation.float()
    temperature, top_k, top_p, penalty = parameters
    numbers = [
        token.float(),
        log_prob,
        entropy,
        sampled_entropy,
        temperature,
        top_k.float(),
        top_p,
        penalty,
        modulation_f32,
    ]
    state.outputs[:n] = torch.stack(numbers, dim=1)
    _update_history(state, shape, token, modulation_f32, active)
    scales = model.gate_scales(modulation_f32, state.gated[:n]) if shape.gated else None
    logits, hidden = _decode(model, state, shape, token, scales)
    state.logits[:n] = logits
    state.hidden[:n] = hidden
    state.cache_lengths[:n].add_(active)
    state.tokens_remaining[:n].sub_(active.long())


def _parameters(state: StaticState, shape: StepShape, modulation: Tensor) -> DecodingParameterRows:
    n = shape.slots
    if not shape.random_modulation and not shape.policies:
        temperature, top_k, top_p, penalty = state.constant_parameters[:n].unbind(1)
        return DecodingParameterRows(temperature, top_k.long(), top_p, penalty)
    table = state.table[:n]
    # float64, so that top-k is rounded as in `decoding_parameters`.
    values = table[:, :SPANS] + modulation[:, None] * table[:, SPANS:MODULATION]
    temperature, top_k, top_p, penalty = values.unbind(1)
    return DecodingParameterRows(temperature.float(), top_k.round().long(), top_p.float(), penalty.float())


def _pick_modulation(state: StaticState, shape: StepShape, uniform: Tensor) -> Tensor:
    """Return the modulation of each slot, (n,) float64."""
    n = shape.slots
    modulation = state.table[:n, MODULATION]
    if shape.random_modulation:
        modulation = torch.where(state.random_modulation[:n], uniform.double(), modulation)
    if shape.policies:
        observations = build_observations(
            state.history.prefix(n, state.capacity),
            state.logits[:n],
            state.hidden[:n],
            step=state.steps[:n],
            episode_length=state.table[:n, EPISODE],
            previous_action=state.previous_modulation[:n],
        )
        for number, policy, sampled in shape.policies:
            action = policy.act_rows(observations, uniform, state.sample_actions[:n] if sampled else None)[:, 0]
            modulation = torch.where(state.policy_numbers[:n] == number, action.double(), modulation)
    return modulation


def _sample(
    state: StaticState, shape: StepShape, parameters: DecodingParameterRows, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return token, log-probability, and the entropies of the distribution before and after the filters, each (n,)."""
    n = shape.slots
    logits = state.logits[:n]
    V = logits.shape[1]
    if shape.logit_adjustments:
        assert state.logit_adjustments is not None
        logits = logits + state.logit_adjustments[:n]
    seen = state.history.seen[:n]
    log_probs = scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature).log_softmax(1)
    probabilities = log_probs.exp()
    entropy = torch.linalg.vecdot(probabilities, log_probs).neg().clamp(min=0.0)
    returned = state.top_ids.shape[1] if shape.top_log_probs else 1
    values, ids = largest(log_probs, min(max(shape.max_candidates, returned), V))
    candidates = filter_largest(values, ids, parameters)
    token, sampled_entropy = pick(candidates, uniform), sampling_entropy(candidates)
    if shape.full_distribution:
        selected = state.filters[:n] == FILTERS[CandidateFilter.FULL_DISTRIBUTION]
        token = torch.where(selected, sample_full_distribution(probabilities, uniform), token)
        sampled_entropy = torch.where(selected, entropy, sampled_entropy)
    if shape.top_p_only:
        selected = state.filters[:n] == FILTERS[CandidateFilter.TOP_P]
        nucleus = filter_largest(*torch.sort(log_probs, dim=1, descending=True, stable=True), parameters)
        token = torch.where(selected, pick(nucleus, uniform), token)
        sampled_entropy = torch.where(selected, sampling_entropy(nucleus), sampled_entropy)
    # Keep the token inside the vocabulary even if logits are not finite, which the host detects by log_prob.
    token = token.clamp(0, V - 1)
    if shape.top_log_probs:
        state.top_ids[:n] = ids[:, :returned]
        state.top_log_probs[:n] = values[:, :returned]
    return token, log_probs.gather(1, token[:, None])[:, 0], entropy, sampled_entropy


def _update_history(state: StaticState, shape: StepShape, token: Tensor, modulation: Tensor, active: Tensor) -> None:
    n = shape.slots
    slots, history = state.slot_numbers[:n], state.history
    if shape.policies:
        history.prefix(n, state.capacity).append(token, active)
    else:  # only policies need n-gram counts, and a sequence never changes its policy
        position = torch.where(active, history.length[:n], 0)
        history.tokens[slots, position] = torch.where(active, token, history.tokens[:n, 0])
        history.seen[slots, token] = history.seen[slots, token] | active
        history.length[:n].add_(active)
    if shape.logit_adjustments:
        assert state.logit_adjustments is not None
        assert state.generated is not None
        presence, frequency = state.penalties[:n].unbind(1)
        repeated = state.generated[slots, token]
        penalty = frequency + torch.where(repeated, 0.0, presence)
        adjusted = state.logit_adjustments[slots, token] - torch.where(active, penalty, 0.0)
        state.logit_adjustments[slots, token] = adjusted
        state.generated[slots, token] = repeated | active
    state.steps[:n].add_(active)
    state.previous_modulation[:n] = torch.where(active, modulation, state.previous_modulation[:n])


def _decode(
    model: DecodingModel, state: StaticState, shape: StepShape, token: Tensor, scales: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return logits (n, V) and final states (n, D) after token (n,); `scales` (G, n, D) are the gates' factors."""
    n, D, H = shape.slots, model.config.d_model, model.config.num_heads
    rotations, layers, final_norm, head = model.packed_weights
    slots = state.slot_numbers[:n]
    # An inactive slot can have a full context window; `clamp` keeps its index inside the cache.
    at = state.cache_lengths[:n].clamp(max=state.context - 1)
    if torch.compiler.is_compiling():  # torch.compile cannot fuse operations on complex numbers
        rotation: Tensor | tuple[Tensor, Tensor] = state.cos[at][:, None, None], state.sin[at][:, None, None]
    else:
        rotation = rotations[at][:, None, None]
    within = state.positions[: shape.span] <= at[:, None]
    mask = torch.where(within, 0.0, -torch.inf).to(state.keys.dtype)[:, None, None]
    x = model.embed(token)
    for index, layer in enumerate(layers):
        qkv = _linear(layer.qkv, layer.norm1(x)).view(n, 3, H, -1)
        rotated = _rotate(layer.normalised(qkv[:, :2].float()), rotation).to(state.keys.dtype)
        keys, values = state.keys[index], state.values[index]
        keys[slots, :, at] = rotated[:, 1]
        values[slots, :, at] = qkv[:, 2].to(values.dtype)
        attended = scaled_dot_product_attention(
            rotated[:, 0].unsqueeze(2), keys[:n, :, : shape.span], values[:n, :, : shape.span], attn_mask=mask
        )
        update = _linear(layer.out, attended.reshape(n, D))
        x = x + update if scales is None else torch.addcmul(x, update.float(), scales[2 * index])
        update = _linear(layer.down, layer.activation(_linear(layer.up, layer.norm2(x))))
        x = x + update if scales is None else torch.addcmul(x, update.float(), scales[2 * index + 1])
    hidden = final_norm(x)
    return head(hidden), hidden


def _linear(layer: PackedLinear, x: Tensor) -> Tensor:
    """Apply the layer. A bfloat16 layer returns bfloat16 in one operation; a float32 result would take three."""
    return layer.narrow(x) if isinstance(layer, BFloat16Linear) else layer(x)


def _rotate(heads: Tensor, rotation: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Rotate heads (n, 2, H, K) by `rotation` (n, 1, 1, K / 2): unit complex numbers, or cosines and sines.

    The two numbers of a rotary pair are neighbours in K.
    """
    pairs = torch.unflatten(heads, -1, (-1, 2))
    if isinstance(rotation, Tensor):
        return torch.view_as_real(torch.view_as_complex(pairs) * rotation).flatten(-2)
    cos, sin = rotation
    first, second = pairs[..., 0], pairs[..., 1]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
