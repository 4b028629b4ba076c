"""The batched decoding environment: B sequences that restart on their own, each when its episode ends.

An episode is a prompt (the beginning of a document) and at most `episode.max_length` generated tokens. End-of-text
terminates it, the length truncates it. Prompts wait in a prefilled pool; a row that restarts copies its keys, values
and logits from there, so the other rows are not disturbed and nothing waits for the device. `refill` builds a new pool
between rollouts. Leaves out: the policy, the weights of the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.config import RLConfig
from common.controller import TokenHistory, build_observations, pad
from common.model import TransformerLM
from common.rl.decoder import Decoder
from common.rl.statistics import NgramStatistics


class Transition(NamedTuple):
    """One step of B environments, on the device.

    components (B, 5); next_observation (B, 64) of the same episode, even where it ended; terminated, truncated (B,)
    bool, never both.
    """

    components: Tensor
    next_observation: Tensor
    terminated: Tensor
    truncated: Tensor


class _Pool(NamedTuple):
    """P prefilled prompts, ready to be copied into rows."""

    prompts: Tensor
    lengths: Tensor
    keys: Tensor
    values: Tensor
    logits: Tensor
    hidden: Tensor
    observation: Tensor


class DecodingEnvironment:
    """B episodes at a time; `observation` (B, 64) is what the policy sees next."""

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
        """`prompts` are token lists of episode.prompt_min_tokens to prompt_max_tokens, drawn with replacement.

        Raises ValueError without prompts, ConfigError when an episode does not fit into the model's context.
        """
        if not prompts or not all(prompts):
            raise ValueError("the environment needs at least one prompt, and no empty ones")
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
        """Prefill prompts for the next `steps` steps: as many as time limits can use up, and one more per row.

        When many episodes terminate early, the pool starts over from its beginning.
        """
        rounds = -(-steps // self.episode_length) + 1
        self._pool = self._prefill(self._sample_prompts(rounds * self.num_envs))
        self._cursor = torch.zeros_like(self._cursor)

    @torch.no_grad()
    def step(self, action: Tensor) -> Transition:
        """Decode one token per row with modulation `action` (B, 1); rows whose episode ended restart."""
        uniform = torch.rand(self.num_envs, generator=self._noise, device=self.device)
        step = self.decoder.step(action, uniform)
        self.steps = self.steps + 1
        terminated = step.ended
        truncated = (self.steps >= self.episode_length) & ~terminated
        following = self.decoder.observe(self.steps, action)
        self.observation = following
        self._restart(terminated | truncated)
        return Transition(step.components, following, terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the environment goes on, as copies."""
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
        """Go on from `state_dict`. Raises ValueError when it comes from another shape; call `refill` afterwards."""
        d = self.decoder
        if state["keys"].shape != d.cache.keys.shape or state["logits"].shape != d.logits.shape:
            raise ValueError(
                f"environment state of shape {tuple(state['keys'].shape)} does not fit {tuple(d.cache.keys.shape)}"
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
    def _prefill(self, chosen: Tensor) -> _Pool:
        lengths = self._lengths[chosen].to(self.device)
        prompts = self._prompts[chosen].to(self.device)
        count, longest = prompts.shape
        cache = self.model.new_cache(count, capacity=longest)
        logits, hidden = self.model.prefill(prompts, cache, lengths)
        history = TokenHistory(count, longest, self.model.config.vocab_size, device=self.device)
        history.reset(prompts, lengths)
        nothing = torch.zeros(count, dtype=torch.long, device=self.device)
        observation = build_observations(
            history,
            logits.float(),
            hidden.float(),
            step=nothing,
            episode_length=self.episode_length,
            previous_action=nothing.float(),
        )
        return _Pool(prompts, lengths, cache.keys, cache.values, logits.float(), hidden.float(), observation)

    def _restart(self, ended: Tensor, *, fresh: bool = False) -> None:
        """Give the rows where `ended` (B,) is true the next prompts of the pool."""
        if self.device.type == "cpu" and not bool(ended.any()):
            return
        pool, d = self._pool, self.decoder
        place = (self._cursor + ended.cumsum(0) - 1).clamp_min(0) % pool.lengths.shape[0]
        self._cursor = self._cursor + ended.sum()
        P = pool.prompts.shape[1]
        row = ended[None, :, None, None, None]
        for mine, theirs in ((d.cache.keys, pool.keys), (d.cache.values, pool.values)):
            mine[:, :, :, :P] = torch.where(row, theirs[:, place], mine[:, :, :, :P])
        d.cache.lengths = torch.where(ended, pool.lengths[place], d.cache.lengths)
        d.cache.bounds = [d.capacity - 1] * self.num_envs
        d.history.reset(pool.prompts[place], pool.lengths[place], ended)
        d.logits = torch.where(ended[:, None], pool.logits[place], d.logits)
        d.hidden = torch.where(ended[:, None], pool.hidden[place], d.hidden)
        self.steps = torch.where(ended, 0, self.steps)
        found = pool.observation[place]
        self.observation = found if fresh else torch.where(ended[:, None], found, self.observation)
