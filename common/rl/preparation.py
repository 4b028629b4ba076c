"""What a controller training consists of before its first rollout: prompts, environment, policy, where it begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.checkpoint import CheckpointManager, CheckpointWriter
from common.config import RLConfig
from common.controller import GatingPolicy
from common.data import Corpus
from common.model import TransformerLM
from common.rl.environment import DecodingEnvironment
from common.rl.prompts import Prompt, evaluation_prompts, ngram_statistics, training_prompts
from common.rl.state import ControllerState
from common.rl.statistics import NgramStatistics
from common.training.hooks import TrainingHooks
from common.training.loading import LongPhase
from common.training.starting_point import newest_sound


@dataclass(frozen=True)
class PreparedTraining:
    """A training at its beginning."""

    state: ControllerState
    statistics: NgramStatistics
    evaluation: list[Prompt]


def prepare_training(
    config: RLConfig,
    model: TransformerLM,
    corpus: Corpus,
    directory: Path,
    hooks: TrainingHooks,
    *,
    end_token: int | None,
) -> PreparedTraining:
    """New weights, a full environment, and what the reward counts."""
    phase = LongPhase(hooks, "preparing")
    model.requires_grad_(False)
    statistics = ngram_statistics(corpus, config, model.config.vocab_size)
    phase.heartbeat()
    prompts = training_prompts(corpus, config)
    environment = DecodingEnvironment(model, prompts, config, statistics, end_token=end_token, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        policy = GatingPolicy(config.policy, modulation_config=config.modulation)
    manager = CheckpointManager(
        directory / "checkpoints",
        keep_last=config.checkpoint_keep_last,
        keep_every=config.checkpoint_keep_every_iterations,
        prefix="iter",
    )
    origin = {"corpus": corpus.digest, "language_model": weights_digest(model, phase)}
    writer = CheckpointWriter(manager, hooks)
    state = ControllerState(config, policy.to(model.device), environment, writer, origin=origin)
    return PreparedTraining(state, statistics, evaluation_prompts(corpus, config))


def resume_from_checkpoint(state: ControllerState, hooks: TrainingHooks) -> None:
    """Go on from the newest sound checkpoint, if there is one, and say what was skipped and what is not exact."""
    manager = state.writer.manager
    info = newest_sound(manager, hooks)
    if info is None:
        return
    reasons = state.restore(info)
    hooks.event("resumed", checkpoint=info.name, step=state.counters.step)
    # Again: the process that wrote it may have died before it could tell. Folders are numbered by iteration; the
    # surroundings count transitions.
    hooks.checkpoint_saved(replace(info, step=state.counters.step))
    hooks.checkpoints_kept(manager.prune())
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def weights_digest(model: TransformerLM, phase: LongPhase) -> str:
    """SHA-256 over names and values of the language model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        phase.heartbeat()
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
