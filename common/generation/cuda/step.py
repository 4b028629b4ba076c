"""One token for every row of a `StaticState`: drawn from its logits, counted, and decoded into the next logits.

The shapes depend on the `Kind` alone and nothing waits for the device, so a step of one kind can be captured as a CUDA
graph and replayed; run plainly it gives the same. The maths is that of `rows`, `sampling.batch` and
`DecodingModel.decode`; here all rows take every way that one of them needs, and a mask picks. Rows that are dead are
worked on and stay as they are. Leaves out: prompts, and dropping the oldest tokens of a full window, which happen
between steps (`batch`).

Shapes: n rows, V vocabulary, G gates, H heads, K head width, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from common.controller import DecodingParameterRows, GatingPolicy, build_observations
from common.generation.cpu.packed_linear import BFloat16Dense, Dense
from common.generation.cuda.state import FILTERS, StaticState
from common.generation.decoding_model import DecodingModel
from common.generation.rows import EPISODE, MODULATION, SPANS
from common.generation.sampling.batch import Filter, draw_from_all
from common.generation.sampling.sample import filter_largest, largest, pick, sampling_entropy, scored_logits


class Kind(NamedTuple):
    """What decides the shapes and ways of a step."""

    rows: int
    """Rows 0..n−1 take part."""
    span: int
    """Attention reads so many positions."""
    most: int
    """Candidates of rows with a top-k; at least the largest of their top-k."""
    alternatives: bool
    """Whether the likeliest tokens are told."""
    whole: bool
    """Whether a row draws from the full distribution."""
    nucleus: bool
    """Whether a row has top-p without top-k, which sorts the vocabulary."""
    offsets: bool
    """Whether a row has a logit bias, a presence or a frequency penalty."""
    random: bool
    """Whether chance picks the modulation of a row."""
    fed: bool
    """Whether a row has a modulation."""
    policies: tuple[tuple[int, GatingPolicy, bool], ...]
    """Number, policy, and whether one of its rows draws its action."""


@torch.no_grad()
def static_step(model: DecodingModel, state: StaticState, kind: Kind) -> None:
    """Draw and decode one token for rows 0..n−1; token and numbers go to `state.out`."""
    n = kind.rows
    alive = state.remaining[:n] > 0
    for_modulation, for_token = state.noise[:, state.row_numbers[:n], state.steps[:n]]
    modulation = _modulation(state, kind, for_modulation)
    parameters = _parameters(state, kind, modulation)
    token, log_prob, entropy, spread = _draw(state, kind, parameters, for_token)
    fed = modulation.float()
    temperature, top_k, top_p, penalty = parameters
    numbers = [token.float(), log_prob, entropy, spread, temperature, top_k.float(), top_p, penalty, fed]
    state.out[:n] = torch.stack(numbers, dim=1)
    _count(state, kind, token, fed, alive)
    scales = model.gate_scales(fed, state.fed[:n]) if kind.fed else None
    logits, hidden = _decode(model, state, kind, token, scales)
    state.logits[:n] = logits
    state.hidden[:n] = hidden
    state.cached[:n].add_(alive)
    state.remaining[:n].sub_(alive.long())


def _parameters(state: StaticState, kind: Kind, modulation: Tensor) -> DecodingParameterRows:
    n = kind.rows
    if not kind.random and not kind.policies:
        temperature, top_k, top_p, penalty = state.constant[:n].unbind(1)
        return DecodingParameterRows(temperature, top_k.long(), top_p, penalty)
    table = state.table[:n]
    # float64, so that top-k rounds as it does for one number.
    values = table[:, :SPANS] + modulation[:, None] * table[:, SPANS:MODULATION]
    temperature, top_k, top_p, penalty = values.unbind(1)
    return DecodingParameterRows(temperature.float(), top_k.round().long(), top_p.float(), penalty.float())


def _modulation(state: StaticState, kind: Kind, uniform: Tensor) -> Tensor:
    """(n,) float64."""
    n = kind.rows
    modulation = state.table[:n, MODULATION]
    if kind.random:
        modulation = torch.where(state.random[:n], uniform.double(), modulation)
    if kind.policies:
        observations = build_observations(
            state.history.prefix(n, state.places),
            state.logits[:n],
            state.hidden[:n],
            step=state.steps[:n],
            episode_length=state.table[:n, EPISODE],
            previous_action=state.previous[:n],
        )
        for number, policy, sampled in kind.policies:
            action = policy.act_rows(observations, uniform, state.sampled[:n] if sampled else None)[:, 0]
            modulation = torch.where(state.policy[:n] == number, action.double(), modulation)
    return modulation


def _draw(
    state: StaticState, kind: Kind, parameters: DecodingParameterRows, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """token, log-probability, entropy, and entropy of the distribution sampled from, each (n,)."""
    n = kind.rows
    logits = state.logits[:n]
    V = logits.shape[1]
    if kind.offsets:
        assert state.sums is not None
        logits = logits + state.sums[:n]
    seen = state.history.seen[:n]
    log_probs = scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature).log_softmax(1)
    probabilities = log_probs.exp()
    entropy = torch.linalg.vecdot(probabilities, log_probs).neg().clamp(min=0.0)
    told = state.top_ids.shape[1] if kind.alternatives else 1
    values, ids = largest(log_probs, min(max(kind.most, told), V))
    candidates = filter_largest(values, ids, parameters)
    token, spread = pick(candidates, uniform), sampling_entropy(candidates)
    if kind.whole:
        its = state.filters[:n] == FILTERS[Filter.NOTHING]
        token = torch.where(its, draw_from_all(probabilities, uniform), token)
        spread = torch.where(its, entropy, spread)
    if kind.nucleus:
        its = state.filters[:n] == FILTERS[Filter.TOP_P]
        nucleus = filter_largest(*torch.sort(log_probs, dim=1, descending=True, stable=True), parameters)
        token = torch.where(its, pick(nucleus, uniform), token)
        spread = torch.where(its, sampling_entropy(nucleus), spread)
    # Logits that are not finite must not lead outside a table: the host hears of them through the log-probability.
    token = token.clamp(0, V - 1)
    if kind.alternatives:
        state.top_ids[:n] = ids[:, :told]
        state.top_log_probs[:n] = values[:, :told]
    return token, log_probs.gather(1, token[:, None])[:, 0], entropy, spread


def _count(state: StaticState, kind: Kind, token: Tensor, modulation: Tensor, alive: Tensor) -> None:
    n = kind.rows
    rows, history = state.row_numbers[:n], state.history
    if kind.policies:
        history.prefix(n, state.places).append(token, alive)
    else:  # counts of n-grams are for policies only, and a row that has one has it from its start
        place = torch.where(alive, history.length[:n], 0)
        history.tokens[rows, place] = torch.where(alive, token, history.tokens[:n, 0])
        history.seen[rows, token] = history.seen[rows, token] | alive
        history.length[:n].add_(alive)
    if kind.offsets:
        assert state.sums is not None
        assert state.drawn is not None
        presence, frequency = state.penalties[:n].unbind(1)
        again = state.drawn[rows, token]
        less = frequency + torch.where(again, 0.0, presence)
        state.sums[rows, token] = state.sums[rows, token] - torch.where(alive, less, 0.0)
        state.drawn[rows, token] = again | alive
    state.steps[:n].add_(alive)
    state.previous[:n] = torch.where(alive, modulation, state.previous[:n])


def _decode(
    model: DecodingModel, state: StaticState, kind: Kind, token: Tensor, scales: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logits (n, V) and final states (n, D) after token (n,)."""
    n, D, H = kind.rows, model.config.d_model, model.config.num_heads
    embedding, rotations, layers, final_norm, head = model.parts
    rows = state.row_numbers[:n]
    # Only rows that are dead can be full.
    at = state.cached[:n].clamp(max=state.context - 1)
    if torch.compiler.is_compiling():  # only real numbers can be fused
        turns: Tensor | tuple[Tensor, Tensor] = state.cos[at][:, None, None], state.sin[at][:, None, None]
    else:
        turns = rotations[at][:, None, None]
    within = state.positions[: kind.span] <= at[:, None]
    mask = torch.where(within, 0.0, -torch.inf).to(state.keys.dtype)[:, None, None]
    x = embedding[token].float()
    for index, layer in enumerate(layers):
        qkv = _linear(layer.qkv, layer_norm(x, *layer.norm1)).view(n, 3, H, -1)
        turned = _turn(qkv[:, :2].float(), turns).to(state.keys.dtype)
        keys, values = state.keys[index], state.values[index]
        keys[rows, :, at] = turned[:, 1]
        values[rows, :, at] = qkv[:, 2].to(values.dtype)
        attended = scaled_dot_product_attention(
            turned[:, 0].unsqueeze(2), keys[:n, :, : kind.span], values[:n, :, : kind.span], attn_mask=mask
        )
        update = _linear(layer.out, attended.reshape(n, D))
        x = x + update if scales is None else torch.addcmul(x, update.float(), scales[2 * index])
        update = _linear(layer.down, gelu(_linear(layer.up, layer_norm(x, *layer.norm2))))
        x = x + update if scales is None else torch.addcmul(x, update.float(), scales[2 * index + 1])
    hidden = layer_norm(x, *final_norm)
    return head(hidden), hidden


def _linear(layer: Dense, x: Tensor) -> Tensor:
    """The layer in its own type: one operation, where float32 between the layers takes three."""
    return layer.narrow(x) if isinstance(layer, BFloat16Dense) else layer(x)


def _turn(heads: Tensor, turns: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Rotate heads (n, 2, H, K), pairs side by side, by angles (n, 1, 1, K / 2): complex, or cosine and sine."""
    pairs = torch.unflatten(heads, -1, (-1, 2))
    if isinstance(turns, Tensor):
        return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2)
    cos, sin = turns
    first, second = pairs[..., 0], pairs[..., 1]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
