"""Policies that are fitted to a table of rewards: the best constant, bins of the entropy, and a small network.

Each function takes the contexts to fit (`train`) and those to decide (`test`), and returns for each context of `test`
the index of a modulation in `CONSTANTS`. `common.rl.headroom` fits and evaluates them on different documents.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.rl.reward_table import RewardTable

BINS = 5
"""Number of bins of the entropy. Each contains the same share of the contexts to fit."""
FIT_STEPS = 300
FIT_WIDTH = 32
FIT_LEARNING_RATE = 1e-2
FIT_WEIGHT_DECAY = 3.0
"""Strong, because there are few contexts and many observation values."""
_CHECK_EVERY = 10
_SEED = 0

Choice = NDArray[np.int64]


FittedPolicy = Callable[[RewardTable, RewardTable], Choice]
"""Fits a policy to the first table and returns indices into `CONSTANTS` for the contexts of the second."""


def best_constant(train: RewardTable, test: RewardTable) -> Choice:
    """Choose the modulation with the highest mean reward."""
    return np.full(len(test.reward), train.reward.mean(axis=0).argmax())


def entropy_bins(train: RewardTable, test: RewardTable) -> Choice:
    """Choose the best modulation of each bin of the entropy."""
    edges = _edges(train)
    return _best_of_bins(train, np.digitize(train.entropy, edges), np.digitize(test.entropy, edges), test)


def entropy_and_repetition_bins(train: RewardTable, test: RewardTable) -> Choice:
    """Like `entropy_bins`, with separate bins for contexts whose most likely token already occurs."""
    edges = _edges(train)
    train_bin, test_bin = (np.digitize(table.entropy, edges) + BINS * table.repeats for table in (train, test))
    return _best_of_bins(train, train_bin, test_bin, test)


def oracle(_: RewardTable, test: RewardTable) -> Choice:
    """Choose the best modulation of each context, which no policy can know. It bounds the gain of every policy."""
    return np.asarray(test.reward.argmax(axis=1), dtype=np.int64)


def supervised_fit(train: RewardTable, test: RewardTable) -> Choice:
    """Choose with a network from the whole observation, trained to maximise the expected reward of its choice.

    The network has one hidden layer and a softmax over the modulations. A fifth of the documents of `train` decides
    when to stop. If the network is not better than the best constant on them, the constant is chosen.
    """
    kept = train.document % 5 != 0
    if kept.all() or not kept.any():
        return best_constant(train, test)
    fit, check = train.rows(kept), train.rows(~kept)
    mean, deviation = fit.observation.mean(axis=0), fit.observation.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, np.inf)

    def inputs(table: RewardTable) -> torch.Tensor:
        return torch.from_numpy(((table.observation - mean) / scale).astype(np.float32))

    advantage = fit.reward - fit.reward.mean(axis=1, keepdims=True)
    target = torch.from_numpy((advantage / (advantage.std() + 1e-12)).astype(np.float32))
    x, x_check = inputs(fit), inputs(check)
    best, choice = check.reward.mean(axis=0)[best_constant(fit, check)[0]], best_constant(train, test)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(_SEED)
        network = nn.Sequential(nn.Linear(x.shape[1], FIT_WIDTH), nn.Tanh(), nn.Linear(FIT_WIDTH, target.shape[1]))
        optimizer = torch.optim.AdamW(network.parameters(), lr=FIT_LEARNING_RATE, weight_decay=FIT_WEIGHT_DECAY)
        for step in range(1, FIT_STEPS + 1):
            loss = -(network(x).softmax(1) * target).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % _CHECK_EVERY == 0:
                with torch.no_grad():
                    reward = value_of(check, network(x_check).argmax(1).numpy()).mean()
                    if reward > best:
                        best, choice = reward, network(inputs(test)).argmax(1).numpy()
    return choice


def value_of(table: RewardTable, choice: Choice) -> NDArray[np.float64]:
    """Return the rewards (C,) of the chosen modulations."""
    return table.reward[np.arange(len(choice)), choice]


def _edges(train: RewardTable) -> NDArray[np.float64]:
    return np.quantile(train.entropy, np.arange(1, BINS) / BINS)


def _best_of_bins(train: RewardTable, train_bin: Choice, test_bin: Choice, test: RewardTable) -> Choice:
    choice = best_constant(train, test)
    for number in np.unique(train_bin):
        choice[test_bin == number] = train.reward[train_bin == number].mean(axis=0).argmax()
    return choice
