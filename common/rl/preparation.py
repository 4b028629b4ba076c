"""Prepares a controller training: selects prompts, builds environment and policy, and resumes from a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from common.checkpoint import CheckpointManager, CheckpointWriter
from common.checkpoint.vocabulary_file import META_KEY
from common.config import RLConfig
from common.controller import GatingPolicy
from common.data import Corpus, VocabularyLabel, gpt2_vocabulary
from common.errors import CheckpointError
from common.model import TransformerLM
from common.rl.environment import DecodingEnvironment
from common.rl.prompts import Prompt, evaluation_prompts, ngram_statistics, training_prompts
from common.rl.state import ControllerState
from common.rl.statistics import NgramStatistics
from common.training.hooks import TrainingHooks
from common.training.loading import LongPhase
from common.training.starting_point import newest_intact_checkpoint


@dataclass(frozen=True)
class PreparedTraining:
    """A training that is ready for its first rollout."""

    state: ControllerState
    statistics: NgramStatistics
    evaluation: list[Prompt]
    """Prompts of the evaluations during training."""


def prepare_training(
    config: RLConfig,
    model: TransformerLM,
    corpus: Corpus,
    directory: Path,
    hooks: TrainingHooks,
    *,
    end_token: int | None,
) -> PreparedTraining:
    """Create the policy with new weights, the environment with its first episodes, and the n-gram statistics."""
    phase = LongPhase(hooks, "preparing")
    model.requires_grad_(False)
    statistics = ngram_statistics(corpus, config, model.config.vocab_size)
    phase.heartbeat()
    prompts = training_prompts(corpus, config)
    environment = DecodingEnvironment(model, prompts, config, statistics, end_token=end_token, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        constrained = config.constraint.mode == "lagrangian"
        policy = GatingPolicy(config.policy, cost_critic=constrained, modulation_config=config.modulation)
    policy.vocabulary = model.vocabulary.label
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
    """Resume from the newest intact checkpoint, if any.

    Report damaged checkpoints and, if training cannot continue bit-exactly, the reasons. Raises CheckpointError if the
    language model has another vocabulary than the one with which the controller was trained.
    """
    manager = state.writer.manager
    info = newest_intact_checkpoint(manager, hooks)
    if info is None:
        return
    stored = info.meta.get(META_KEY) or asdict(gpt2_vocabulary().label)
    if stored["digest"] != state.policy.vocabulary.digest:
        raise CheckpointError(
            f"{info.path}: the controller was trained with the vocabulary {VocabularyLabel(**stored)}, but the "
            f"language model has {state.policy.vocabulary}; choose a language model with the controller's vocabulary"
        )
    reasons = state.restore(info)
    hooks.event("resumed", checkpoint=info.name, step=state.counters.step)
    # The checkpoint is reported again, because the process that wrote it may have died before reporting it. Folders are
    # numbered by iteration, but the hooks expect the number of transitions.
    hooks.checkpoint_saved(replace(info, step=state.counters.step))
    hooks.checkpoints_kept(manager.prune())
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def weights_digest(model: TransformerLM, phase: LongPhase) -> str:
    """Return the SHA-256 of the names and values of the language model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        phase.heartbeat()
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
