"""The batched decoding environment: B sequences, each of which restarts with a new prompt when its episode ends.

An episode is a prompt (the beginning of a document) and at most `episode.max_length` generated tokens. End-of-text
terminates it, the length truncates it. Prompts are prefilled into a pool. A sequence that restarts copies keys, values
and logits from the pool, so the other sequences continue and no operation waits for the device. `refill` builds a new
pool between rollouts. The caller chooses the modulation and computes the weighted sum of the reward components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.config import RLConfig
from common.controller import TokenHistory, build_observations, pad
from common.model import TransformerLM
from common.model.transfer import to_device
from common.rl.decoder import Decoder
from common.rl.statistics import NgramStatistics


class Transition(NamedTuple):
    """One step of B environments, on the device.

    Shapes: components (B, 5); next_observation (B, 64), which belongs to the same episode even if the episode has
    ended; terminated and truncated (B,) bool, never both true.
    """

    components: Tensor
    next_observation: Tensor
    terminated: Tensor
    truncated: Tensor


class _PromptPool(NamedTuple):
    """P prefilled prompts, ready to be copied into sequences that restart."""

    prompts: Tensor
    lengths: Tensor
    keys: Tensor
    values: Tensor
    logits: Tensor
    hidden: Tensor
    observation: Tensor


class DecodingEnvironment:
    """Runs B episodes at a time; `observation` (B, 64) holds the next input of the policy."""

    def __init__(
        self,
        model: TransformerLM,
        prompts: Sequence[Sequence[int]],
        config: RLConfig,
        statistics: NgramStatistics | None,
        *,
        end_token: int | None,
        seed: int,
    ) -> None:
        """Start B episodes with prompts sampled with replacement from `prompts`, lists of token ids.

        A prompt longer than episode.prompt_max_tokens is cut. Raises ValueError without prompts or for an empty one,
        ConfigError if an episode does not fit into the model's context.
        """
        if not prompts or not all(prompts):
            raise ValueError("the environment needs at least one prompt, and no prompt may be empty")
        self.num_envs = config.ppo.num_envs
        self.episode_length = config.episode.max_length
        self.model = model
        self.decoder = Decoder(model, config, statistics, self.num_envs, end_token=end_token)
        self.device = self.decoder.device
        longest = config.episode.prompt_max_tokens
        self._prompts, self._lengths = pad([prompt[:longest] for prompt in prompts])
        self._host_random = torch.Generator().manual_seed(seed)
        self._noise = torch.Generator(self.device).manual_seed(seed + 1)
        self.steps = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.observation = torch.zeros(0)
        self._cursor = torch.zeros((), dtype=torch.long, device=self.device)
        self._pool = self._prefill(self._sample_prompts(self.num_envs))
        self._restart(torch.ones(self.num_envs, dtype=torch.bool, device=self.device), fresh=True)

    def refill(self, steps: int) -> None:
        """Prefill the prompts that `steps` steps need if every episode has full length, and one more per sequence.

        If episodes terminate early and more prompts are needed, the pool is used again from its beginning.
        """
        rounds = -(-steps // self.episode_length) + 1
        self._pool = self._prefill(self._sample_prompts(rounds * self.num_envs))
        self._cursor = torch.zeros_like(self._cursor)

    def restart_groups(self, group_size: int) -> None:
        """Start a new episode in every sequence. Each prompt is used by `group_size` neighbouring sequences."""
        chosen = self._sample_prompts(self.num_envs // group_size)
        self._pool = self._prefill(chosen.repeat_interleave(group_size))
        self._cursor = torch.zeros_like(self._cursor)
        self._restart(torch.ones(self.num_envs, dtype=torch.bool, device=self.device), fresh=True)

    @torch.no_grad()
    def step(self, action: Tensor) -> Transition:
        """Decode one token per sequence with modulation `action` (B, 1); restart sequences whose episode has ended."""
        uniform = torch.rand(self.num_envs, generator=self._noise, device=self.device)
        step = self.decoder.step(action, uniform)
        self.steps = self.steps + 1
        terminated = step.ended
        truncated = (self.steps >= self.episode_length) & ~terminated
        next_observation = self.decoder.observe(self.steps, action)
        self.observation = next_observation
        self._restart(terminated | truncated)
        return Transition(step.components, next_observation, terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state from which the environment can continue exactly.

        The copy does not contain the pool of prompts, which `refill` builds again.
        """
        d = self.decoder
        state = {
            "keys": d.cache.keys,
            "values": d.cache.values,
            "cache_lengths": d.cache.lengths,
            "tokens": d.history.tokens,
            "lengths": d.history.length,
            "logits": d.logits,
            "hidden": d.hidden,
            "steps": self.steps,
            "observation": self.observation,
        }
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in state.items()}
        copies["host_random"] = self._host_random.get_state()
        copies["noise"] = self._noise.get_state()
        return copies

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a result of `state_dict`; call `refill` afterwards.

        Raises ValueError if the saved tensors have other shapes than those of this environment.
        """
        d = self.decoder
        if state["keys"].shape != d.cache.keys.shape or state["logits"].shape != d.logits.shape:
            raise ValueError(
                f"the saved keys have shape {tuple(state['keys'].shape)}, expected {tuple(d.cache.keys.shape)}"
            )
        d.cache.keys.copy_(state["keys"])
        d.cache.values.copy_(state["values"])
        d.cache.lengths.copy_(state["cache_lengths"])
        d.cache.bounds = [d.capacity - 1] * self.num_envs
        d.history.reset(state["tokens"].to(self.device), state["lengths"].to(self.device))
        d.logits = state["logits"].to(self.device, copy=True)
        d.hidden = state["hidden"].to(self.device, copy=True)
        self.steps = state["steps"].to(self.device, copy=True)
        self.observation = state["observation"].to(self.device, copy=True)
        self._host_random.set_state(state["host_random"].cpu())
        self._noise.set_state(state["noise"].cpu())

    def _sample_prompts(self, count: int) -> Tensor:
        return torch.randint(self._prompts.shape[0], (count,), generator=self._host_random)

    @torch.no_grad()
    def _prefill(self, chosen: Tensor) -> _PromptPool:
        lengths = to_device(self._lengths[chosen], self.device)
        prompts = to_device(self._prompts[chosen], self.device)
        count, longest = prompts.shape
        cache = self.model.new_cache(count, capacity=longest)
        logits, hidden = self.model.prefill(prompts, cache, lengths)
        history = TokenHistory(count, longest, self.model.config.vocab_size, device=self.device)
        history.reset(prompts, lengths)
        zeros = torch.zeros(count, dtype=torch.long, device=self.device)
        observation = build_observations(
            history,
            logits.float(),
            hidden.float(),
            step=zeros,
            episode_length=self.episode_length,
            previous_action=zeros.float(),
        )
        return _PromptPool(prompts, lengths, cache.keys, cache.values, logits.float(), hidden.float(), observation)

    def _restart(self, ended: Tensor, *, fresh: bool = False) -> None:
        """Restart the sequences where `ended` (B,) is true with the next prompts of the pool."""
        if self.device.type == "cpu" and not bool(ended.any()):
            return
        pool, d = self._pool, self.decoder
        pool_index = (self._cursor + ended.cumsum(0) - 1).clamp_min(0) % pool.lengths.shape[0]
        self._cursor = self._cursor + ended.sum()
        P = pool.prompts.shape[1]
        restarts = ended[None, :, None, None, None]
        for current, prefilled in ((d.cache.keys, pool.keys), (d.cache.values, pool.values)):
            current[:, :, :, :P] = torch.where(restarts, prefilled[:, pool_index], current[:, :, :, :P])
        d.cache.lengths = torch.where(ended, pool.lengths[pool_index], d.cache.lengths)
        d.cache.bounds = [d.capacity - 1] * self.num_envs
        d.history.reset(pool.prompts[pool_index], pool.lengths[pool_index], ended)
        d.logits = torch.where(ended[:, None], pool.logits[pool_index], d.logits)
        d.hidden = torch.where(ended[:, None], pool.hidden[pool_index], d.hidden)
        self.steps = torch.where(ended, 0, self.steps)
        first = pool.observation[pool_index]
        self.observation = first if fresh else torch.where(ended[:, None], first, self.observation)
