"""Controller jobs: training, ablation and headroom.

The functions are called by `services.trainer.handlers` for jobs of a worker, and by `services.trainer.local` for `tidal
train`. Their arguments are paths, not references to checkpoints. The training loop is in
`common.rl.train_controller`.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from common import rl
from common.checkpoint import load_model, load_vocabulary
from common.checkpoint.manager import MANIFEST, verify
from common.config import DataConfig, RLConfig
from common.controller import load_policy, require_same_vocabulary
from common.errors import CheckpointError
from common.files import flush, storage_errors
from common.training.hooks import Outcome, TrainingHooks, outcome_of
from common.training.loading import StoppedWhileLoading, load_corpus
from common.training.starting_point import has_checkpoints


def run_controller_training(
    config: RLConfig,
    lm_checkpoint: Path,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data: DataConfig,
    data_dir: Path,
    initial_checkpoint: Path | None = None,
) -> Outcome:
    """Run `common.rl.train_controller`, which includes an ablation.

    `initial_checkpoint` is the checkpoint from which the first attempt starts.
    """
    if initial_checkpoint is not None and not has_checkpoints(directory):
        _copy_checkpoint(initial_checkpoint, directory)
    return rl.train_controller(config, lm_checkpoint, directory, hooks, data=data, data_dir=data_dir)


def ablate_controller(
    config: RLConfig,
    lm_checkpoint: Path,
    policy_path: Path,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data: DataConfig,
    data_dir: Path,
) -> Outcome:
    """Compare learned, random and fixed modulation on unseen prompts and write `ablation_results.json`."""
    device = rl.select_compute_device(config)
    try:
        corpus = load_corpus(data, data_dir, hooks, vocabulary=load_vocabulary(lm_checkpoint))
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    model = load_model(lm_checkpoint, device=device)
    policy = load_policy(policy_path)
    require_same_vocabulary(policy, model.vocabulary)
    hooks.report_progress(0, 1)
    outcome = rl.run_ablation_job(config, model, policy, corpus, directory, hooks)
    if outcome is Outcome.COMPLETED:
        hooks.report_progress(1, 1)
    return outcome


def measure_controller_headroom(
    config: RLConfig, lm_checkpoint: Path, directory: Path, hooks: TrainingHooks, *, data: DataConfig, data_dir: Path
) -> Outcome:
    """Measure the reward that policies could gain over the best constant, and write `headroom_results.json`."""
    device = rl.select_compute_device(config)
    try:
        corpus = load_corpus(data, data_dir, hooks, vocabulary=load_vocabulary(lm_checkpoint))
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    return rl.run_headroom_job(config, load_model(lm_checkpoint, device=device), corpus, directory, hooks)


def _copy_checkpoint(checkpoint: Path, directory: Path) -> None:
    """Copy the checkpoint folder of another experiment atomically; the training then resumes from the copy."""
    if not (checkpoint / MANIFEST).is_file():
        raise CheckpointError(
            f"{checkpoint}: not a checkpoint folder (it has no {MANIFEST}), so training cannot start from it"
        )
    verify(checkpoint)
    target = directory / "checkpoints" / checkpoint.name
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with storage_errors(target):
            shutil.copytree(checkpoint, temporary)
            for file in temporary.iterdir():
                flush(file)
            temporary.rename(target)
            flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
