"""One handler per job type: each validates the payload, resolves references and calls the library.

A handler imports torch and its library only when it is called. A new job type needs a payload in
`common.jobs.payloads`, a function here, and an entry in HANDLERS. The socket, and the handling of exceptions, are in
`services.trainer.child`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.artifacts import ArtifactStore
from common.child.protocol import ChildJob
from common.config import DataConfig
from common.jobs.payloads import (
    AblationPayload,
    AnalysisPayload,
    DatasetPayload,
    EvaluationPayload,
    HeadroomPayload,
    LmTrainingPayload,
    RlTrainingPayload,
)
from common.training.hooks import Outcome, TrainingHooks
from services.trainer import experiments
from tidal_client.vocabulary import JobType


@dataclass(frozen=True)
class JobPaths:
    """The artifact store and the data folder that a job uses."""

    store: ArtifactStore
    data_dir: Path


Handler = Callable[[ChildJob, JobPaths, TrainingHooks], Outcome]


def lm_training(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Train a language model."""
    from services.trainer import language_model

    payload = LmTrainingPayload.model_validate(job.payload)
    _require_inside(payload.config.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    initial = payload.initial_checkpoint
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    experiments.write_lm_config(directory, payload.config)
    return language_model.train_language_model(
        payload.config,
        directory,
        hooks,
        data_dir=paths.data_dir,
        initial_checkpoint=paths.store.resolve(initial) if initial else None,
        checkpoint_mode=payload.checkpoint_mode,
    )


def rl_training(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Train a controller for a trained language model, then run the ablation of the controller."""
    from services.trainer import controller

    payload = RlTrainingPayload.model_validate(job.payload)
    _require_inside(payload.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    lm_checkpoint = paths.store.resolve(payload.checkpoint)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    experiments.write_rl_config(directory, payload.config, lm_checkpoint)
    initial = payload.initial_checkpoint
    return controller.run_controller_training(
        payload.config,
        lm_checkpoint,
        directory,
        hooks,
        data=payload.data,
        data_dir=paths.data_dir,
        initial_checkpoint=paths.store.resolve(initial) if initial else None,
    )


def evaluation(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Compute the perplexity of a checkpoint and generate samples."""
    from services.trainer import language_model

    payload = EvaluationPayload.model_validate(job.payload)
    _require_inside(payload.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    model_path = paths.store.resolve(payload.checkpoint)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    return language_model.evaluate_checkpoint(
        model_path, directory, hooks, data=payload.data, evaluation=payload.evaluation, data_dir=paths.data_dir
    )


def headroom(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Measure the reward that policies could gain over the best constant modulation."""
    from services.trainer import controller

    payload = HeadroomPayload.model_validate(job.payload)
    _require_inside(payload.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    lm_checkpoint = paths.store.resolve(payload.checkpoint)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    experiments.write_rl_config(directory, payload.config, lm_checkpoint)
    return controller.measure_controller_headroom(
        payload.config, lm_checkpoint, directory, hooks, data=payload.data, data_dir=paths.data_dir
    )


def ablation(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Compare a trained controller with random and fixed modulation."""
    from services.trainer import controller

    payload = AblationPayload.model_validate(job.payload)
    _require_inside(payload.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    lm_checkpoint, policy_path = paths.store.resolve(payload.checkpoint), paths.store.resolve(payload.rl_checkpoint)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    experiments.write_rl_config(directory, payload.config, lm_checkpoint)
    return controller.ablate_controller(
        payload.config, lm_checkpoint, policy_path, directory, hooks, data=payload.data, data_dir=paths.data_dir
    )


def analysis(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Analyse samples for given prompts. Their modulation is chosen by a controller, fixed or random."""
    from services.trainer import trajectories

    payload = AnalysisPayload.model_validate(job.payload)
    directory = paths.store.experiment(job.experiment_id)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    return trajectories.run_analysis(payload, paths.store, directory, hooks)


def dataset(job: ChildJob, paths: JobPaths, hooks: TrainingHooks) -> Outcome:
    """Tokenise a corpus, so that later trainings do not have to."""
    from services.trainer import corpora

    payload = DatasetPayload.model_validate(job.payload)
    _require_inside(payload.data, paths.data_dir)
    directory = paths.store.experiment(job.experiment_id)
    experiments.write_metadata(directory, payload.experiment_type, payload.source_checkpoint)
    return corpora.tokenise_corpus(payload, hooks, data_dir=paths.data_dir)


def _require_inside(data: DataConfig, data_dir: Path) -> None:
    from common.data import require_inside

    require_inside(data, data_dir)


HANDLERS: dict[str, Handler] = {
    JobType.LM_TRAINING: lm_training,
    JobType.RL_TRAINING: rl_training,
    JobType.EVALUATION: evaluation,
    JobType.HEADROOM: headroom,
    JobType.ABLATION: ablation,
    JobType.ANALYSIS: analysis,
    JobType.DATASET: dataset,
}
