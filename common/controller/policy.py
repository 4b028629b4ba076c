"""The actor-critic network that picks the modulation of each token.

It has a feature extractor on the 64 observation values, an actor head (Beta, or a Gaussian squashed by a sigmoid), a
critic head and, for constrained training, a cost critic head. With the default configuration it has 20,963 parameters,
23,076 with the cost critic. The modules have the same names as in the original implementation, so Tidal and the
original can load each other's `state_dict`. Training is in `common.rl`, loading from files in
`common.controller.policy_file`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from common.config import ModulationConfig, PolicyConfig
from common.controller.modulation import DEFAULT_MODULATION
from common.controller.observation import OBSERVATION_DIM
from common.controller.quantile import beta_quantile, normal_quantile
from common.data.vocabulary import Vocabulary, gpt2_vocabulary
from common.errors import InvalidInputError

ACTION_MIN, ACTION_MAX = 0.001, 0.999
"""Sampled actions are clamped to this range, and log-probabilities are those of the clamped action."""
DETERMINISTIC_MIN, DETERMINISTIC_MAX = 0.01, 0.99
OBSERVATION_CLIP = 10.0
"""Largest absolute value of a normalised observation."""
_QUADRATURE_NODES = 32


class PolicyOutput(NamedTuple):
    """The parameters of the action's distribution (B, 1), and the critics' values (B,).

    `first`, `second` are alpha and beta of a Beta, or mean and log deviation of the Gaussian before the sigmoid.
    `cost_value` is None without a cost critic.
    """

    first: Tensor
    second: Tensor
    value: Tensor
    cost_value: Tensor | None


class PolicyStep(NamedTuple):
    """The actions of one step: action (B, 1) in (0, 1), log_prob (B,), value (B,), cost_value (B,) or None."""

    action: Tensor
    log_prob: Tensor
    value: Tensor
    cost_value: Tensor | None


class PolicyEvaluation(NamedTuple):
    """The evaluation of given actions: log_prob (B,), entropy (B,), value (B,), cost_value (B,) or None."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    cost_value: Tensor | None


class GatingPolicy(nn.Module):
    """The actor-critic whose action is the modulation.

    Weights have an orthogonal initialisation with gain √2. With a Beta, output layers have gain 0.01 instead, so that
    training starts near alpha = beta. Biases start at 0. `modulation_config` is the map from action to decoding
    parameters that the policy was trained with. Without a `config`, the policy is that of the original project, whose
    deterministic action is the mode.
    """

    def __init__(
        self,
        config: PolicyConfig | None = None,
        *,
        cost_critic: bool = False,
        observation_dim: int = OBSERVATION_DIM,
        modulation_config: ModulationConfig = DEFAULT_MODULATION,
    ) -> None:
        super().__init__()
        self.config = config or PolicyConfig(deterministic_action="mode")
        self.vocabulary = gpt2_vocabulary().label
        """The vocabulary of the language model with which the policy was trained."""
        self.modulation_config = modulation_config
        self.observation_dim = observation_dim
        if self.config.normalise_observations:
            self.register_buffer("observation_mean", torch.zeros(observation_dim))
            self.register_buffer("observation_deviation", torch.ones(observation_dim))
        hidden = self.config.hidden_dim
        self.feature_extractor = nn.Sequential(
            nn.LayerNorm(observation_dim),
            nn.Linear(observation_dim, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden // 2),
            nn.Tanh(),
        )
        # Modules are registered in the order of the original's files, because optimiser states depend on the order.
        self.actor_head: nn.Sequential | None = None
        self.actor_mean: nn.Sequential | None = None
        self.cost_critic_head: nn.Sequential | None = None
        if self.config.distribution == "beta":
            self.actor_head = _head(hidden, 2)
        else:
            self.actor_mean = _head(hidden, 1)
            self.log_std = nn.Parameter(torch.zeros(1))
        self.critic_head = _head(hidden, 1)
        if cost_critic:
            self.cost_critic_head = _head(hidden, 1)
        self._initialise()

    def _initialise(self) -> None:
        output_gain = 0.01 if self.config.distribution == "beta" else math.sqrt(2.0)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, gain=math.sqrt(2.0))
                nn.init.zeros_(module.bias)
        for head in (self.actor_head, self.actor_mean, self.critic_head, self.cost_critic_head):
            if head is not None:
                nn.init.orthogonal_(_output_layer(head).weight, gain=output_gain)

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Return the parameters of the distributions and the critics' values for `observation` (B, 64)."""
        features = self.feature_extractor(self.normalise(observation))
        first, second = self._distribution(self.actor(features))
        cost_value = None if self.cost_critic_head is None else self.cost_critic_head(features).squeeze(-1)
        return PolicyOutput(first, second, self.critic_head(features).squeeze(-1), cost_value)

    def set_observation_scale(self, mean: Tensor, variance: Tensor) -> None:
        """Set the statistics (64,) by which observations are normalised from now on."""
        self.get_buffer("observation_mean").copy_(mean)
        self.get_buffer("observation_deviation").copy_((variance + 1e-8).sqrt())

    def normalise(self, observation: Tensor) -> Tensor:
        """Return what the network sees of `observation` (B, 64): the same, or normalised values, if configured."""
        if not self.config.normalise_observations:
            return observation
        centred = observation - self.get_buffer("observation_mean")
        return (centred / self.get_buffer("observation_deviation")).clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)

    @property
    def actor(self) -> nn.Sequential:
        """The actor head, which computes the parameters of the distribution."""
        head = self.actor_mean if self.actor_head is None else self.actor_head
        assert head is not None
        return head

    def _distribution(self, head_output: Tensor) -> tuple[Tensor, Tensor]:
        if self.actor_head is None:
            return head_output, self.log_std.expand_as(head_output)
        concentrations = (softplus(head_output) + 1.0).clamp(max=self.config.concentration_max)
        return concentrations[:, :1], concentrations[:, 1:]

    def act(
        self, observation: Tensor, *, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> PolicyStep:
        """Return an action for each observation (B, 64): a sample of the distribution or, if `deterministic`, its mean
        or mode, as configured.

        A sampled action is clamped to [0.001, 0.999], the deterministic one to [0.01, 0.99].
        """
        output: PolicyOutput = self(observation)
        action = self._deterministic(output.first, output.second) if deterministic else self._sample(output, generator)
        return PolicyStep(action, self._log_prob(output, action), output.value, output.cost_value)

    def act_rows(self, observation: Tensor, uniform: Tensor, sample_mask: Tensor | None) -> Tensor:
        """Return actions (B, 1) for observations (B, 64), each row independently of the others.

        Where `sample_mask` (B,) bool is true, the action is the quantile of the distribution at `uniform` (B,) in [0,
        1). Where it is false, the action is the deterministic one; if `sample_mask` is None, every action is.
        """
        features = self.feature_extractor(self.normalise(observation))
        return self.actions_from_head(self.actor(features), uniform, sample_mask)

    def actions_from_head(self, head_output: Tensor, uniform: Tensor, sample_mask: Tensor | None) -> Tensor:
        """Return the actions of `act_rows`, given the outputs of the actor's last layer."""
        first, second = self._distribution(head_output)
        deterministic = self._deterministic(first, second)
        if sample_mask is None:
            return deterministic
        if self.actor_head is not None:
            action = beta_quantile(first, second, uniform[:, None])
        else:
            action = torch.sigmoid(normal_quantile(first, second.exp(), uniform[:, None]))
        return torch.where(sample_mask[:, None], action.clamp(ACTION_MIN, ACTION_MAX), deterministic)

    def evaluate(self, observation: Tensor, action: Tensor) -> PolicyEvaluation:
        """Return the log-probability of `action` (B, 1), the entropy of the distribution and the critics' values.

        The results are differentiable.
        """
        output: PolicyOutput = self(observation)
        return PolicyEvaluation(self._log_prob(output, action), self._entropy(output), output.value, output.cost_value)

    def _sample(self, output: PolicyOutput, generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            if self.actor_head is not None:
                # A Beta variate as a ratio of Gamma variates, because torch.distributions.Beta takes no generator.
                a = torch._standard_gamma(output.first, generator=generator)
                b = torch._standard_gamma(output.second, generator=generator)
                sample_mask = a / (a + b)
            else:
                noise = torch.empty_like(output.first).normal_(generator=generator)
                sample_mask = torch.sigmoid(output.first + output.second.exp() * noise)
            return sample_mask.clamp(ACTION_MIN, ACTION_MAX)

    def _deterministic(self, first: Tensor, second: Tensor) -> Tensor:
        if self.config.deterministic_action == "mean":
            action = self._mean(first, second)
        elif self.actor_head is None:
            action = torch.sigmoid(first)
        else:
            excess = first + second - 2.0
            flat = excess <= 0.0
            action = ((first - 1.0) / excess.masked_fill(flat, 1.0)).masked_fill(flat, 0.5)
        return action.clamp(DETERMINISTIC_MIN, DETERMINISTIC_MAX)

    def _mean(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean of the action: of the Beta in closed form, of the squashed Gaussian by quadrature."""
        if self.actor_head is not None:
            return first / (first + second)
        nodes, weights = _hermite(first.device, first.dtype)
        return (weights * torch.sigmoid(first[..., None] + second.exp()[..., None] * nodes)).sum(-1)

    def _log_prob(self, output: PolicyOutput, action: Tensor) -> Tensor:
        m = action.reshape(output.first.shape).clamp(ACTION_MIN, ACTION_MAX)
        if self.actor_head is not None:
            a, b = output.first, output.second
            normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
            density = (a - 1.0) * torch.log(m) + (b - 1.0) * torch.log1p(-m) - normaliser
        else:
            u = torch.logit(m)
            scaled = (u - output.first) / output.second.exp()
            normal = -0.5 * scaled.square() - output.second - 0.5 * math.log(2.0 * math.pi)
            density = normal - torch.log(m) - torch.log1p(-m)
        return density.sum(-1)

    def _entropy(self, output: PolicyOutput) -> Tensor:
        """Return the entropy in nats of the Beta or of the squashed Gaussian.

        For the latter it is H(u) + E[ln(m(1−m))] with m = sigmoid(u), by Gauss–Hermite quadrature.
        """
        if self.actor_head is not None:
            a, b = output.first, output.second
            total = a + b
            normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(total)
            digammas = (
                (a - 1.0) * torch.digamma(a) + (b - 1.0) * torch.digamma(b) - (total - 2.0) * torch.digamma(total)
            )
            return (normaliser - digammas).sum(-1)
        nodes, weights = _hermite(output.first.device, output.first.dtype)
        u = output.first[..., None] + output.second.exp()[..., None] * nodes
        log_slope = (weights * (logsigmoid(u) + logsigmoid(-u))).sum(-1)
        return (0.5 * math.log(2.0 * math.pi * math.e) + output.second + log_slope).sum(-1)


def _head(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden // 2, hidden // 4), nn.Tanh(), nn.Linear(hidden // 4, outputs))


def _output_layer(head: nn.Sequential) -> nn.Linear:
    layer = head[-1]
    assert isinstance(layer, nn.Linear)
    return layer


@cache
@torch.inference_mode(False)  # the result is also used where gradients are computed
def _hermite(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of the quadrature E[f(x)], x ~ N(0, 1). They are sent to each device only once."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
    scaled = weights / math.sqrt(2.0 * math.pi)
    return torch.tensor(nodes, dtype=dtype, device=device), torch.tensor(scaled, dtype=dtype, device=device)


def require_same_vocabulary(policy: GatingPolicy, vocabulary: Vocabulary) -> None:
    """Raise InvalidInputError if the policy was trained with another vocabulary than a model's, `vocabulary`."""
    if policy.vocabulary.digest != vocabulary.digest:
        raise InvalidInputError(
            f"the controller was trained with the vocabulary {policy.vocabulary}, but the language model has "
            f"{vocabulary}; choose a controller that was trained for this model"
        )
