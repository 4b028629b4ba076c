"""Reads the stored data of experiments for generated reports.

The template of a report uses the data that this module returns. Database rows are read first, then files,
so that no session is open while files are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, undefer

from common.access import Actor
from common.artifacts import ArtifactStore
from common.config import LMConfig, RLConfig, load_lm_config, load_rl_config
from common.db import Analysis, Experiment
from common.errors import InvalidInputError, NotFoundError, TidalError
from common.metrics import metric_names, names, read_table
from common.reports import AnalysisFacts, CheckpointFacts, ExperimentFacts, MetricSummary, generate_report
from common.reports.facts import flat
from common.reports.templates.trajectory import MOST_ANALYSES
from services.api.context import Context
from services.api.operations import checkpoints, experiments, reports
from services.api.operations.configs import find_config
from services.api.operations.job_view import error_of, progress_of
from services.api.operations.metrics import limit_large_reads
from services.api.schemas.reports import MAX_MARKDOWN, GenerateReportRequest, ReportRequest
from tidal_client.vocabulary import ExperimentType
from tidal_client.wire.report import ReportReply

Kind = Literal["metrics", "rl-metrics"]
KINDS: tuple[Kind, ...] = ("metrics", "rl-metrics")
DESCRIBED_METRICS = (
    names.LOSS,
    names.VALIDATION_LOSS,
    names.PERPLEXITY,
    names.BITS_PER_BYTE,
    names.TOKENS_PER_SECOND,
    names.BYTES_PER_SECOND,
    names.EPISODE_REWARD,
    names.STEP_REWARD,
    names.EVALUATION_REWARD,
    names.ENTROPY,
    names.MODULATION_MEAN,
    names.MODULATION_STD,
    names.GRADIENT_NORM,
    names.RL_GRADIENT_NORM,
    names.POLICY_LOSS,
    names.EXPLAINED_VARIANCE,
    names.LAGRANGE_MULTIPLIER,
    names.COST,
)
"""The metrics that generated reports describe, in addition to the components of the reward."""


def make_report(context: Context, body: GenerateReportRequest, actor: Actor) -> ReportReply:
    """Generate a report from stored data, and store the report.

    Raises NotFoundError for an unknown experiment, and InvalidInputError if the report is too long.
    """
    facts = [experiment_facts(context, experiment_id) for experiment_id in body.experiments]
    title, markdown = generate_report(body.pattern, facts)
    if len(markdown) > MAX_MARKDOWN:
        raise InvalidInputError(
            f"the report would have {len(markdown):,} characters, more than {MAX_MARKDOWN:,}; choose fewer experiments "
            "or a template with fewer sections",
            code="report_too_long",
        )
    request = ReportRequest(title=body.title or title[:200], markdown=markdown, experiment_ids=body.experiments)
    with context.sessions.begin() as session:
        return reports.create_report(session, request, actor, pattern=body.pattern)


def experiment_facts(context: Context, experiment_id: str) -> ExperimentFacts:
    """Return all data of an experiment that the templates use. Raises NotFoundError."""
    store = context.store
    with context.sessions() as session:
        experiment, job = experiments.find_experiment(session, experiment_id)
        config = experiments.read_config(session, store, experiment_id)
        files = checkpoints.experiment_checkpoints(session, store, experiment_id).checkpoints
        analyses, total = _analyses(session, experiment_id)
    metrics, diverged = series_ends(store, experiment_id)
    progress = progress_of(job) if job is not None else None
    error = error_of(job) if job is not None else None
    stored = None if config.config is None and config.rl_config is None else flat(config.config or {})
    if stored is not None and config.rl_config is not None:
        stored |= flat(config.rl_config, "rl")
    return ExperimentFacts(
        id=experiment.id,
        type=experiment.type,
        name=experiment.name,
        status=job.status if job is not None else "imported",
        tags=experiment.tags,
        notes=experiment.notes,
        created_at=experiment.created_at,
        finished_at=job.finished_at if job is not None else None,
        source_experiment_id=experiment.source_experiment_id,
        source_checkpoint=experiment.source_checkpoint,
        step=progress.step if progress is not None else None,
        total_steps=progress.total_steps if progress is not None else None,
        attempts=job.attempt if job is not None else 0,
        error=f"{error.code}: {error.message}" if error is not None else None,
        config=stored,
        defaults=_defaults(context) if stored else {},
        metrics=metrics,
        diverged=diverged,
        checkpoints=[
            CheckpointFacts(file.name, file.kind, file.step, file.size_bytes, bool(file.best)) for file in files
        ],
        evaluation=read_optional_result(store, experiment_id, experiments.EVALUATION_FILE),
        ablation=read_optional_result(store, experiment_id, experiments.ABLATION_FILE),
        analyses=analyses,
        analyses_total=total,
    )


def read_optional_result(store: ArtifactStore, experiment_id: str, name: str) -> dict[str, Any] | None:
    """Return the content of a result file; None if it does not exist."""
    try:
        return experiments.read_result(store, experiment_id, name).result
    except NotFoundError:
        return None


def series_ends(store: ArtifactStore, experiment_id: str) -> tuple[dict[str, MetricSummary], dict[str, int]]:
    """Return two mappings, each keyed by the name of a described metric.

    The first contains the first, last, lowest and highest value of the metric, computed from all points. The second
    contains the first step at which the value was not finite; a metric that was always finite is not in it.
    """
    folder = store.experiment(experiment_id)
    found: dict[str, MetricSummary] = {}
    diverged: dict[str, int] = {}
    for kind in KINDS:
        described = [
            name
            for name in metric_names(folder, kind)
            if name in DESCRIBED_METRICS or name.startswith(names.REWARD_PREFIX)
        ]
        if not described:
            continue
        with limit_large_reads(folder / "metrics" / f"{kind}.index"):
            table = read_table(folder, kind, described)
            for name in described:
                steps, values = table.series(name)
                if len(steps):
                    found[name] = _ends(steps, values)
                broken = table.non_finite(name)
                if len(broken):
                    diverged[name] = int(broken[0])
    return found, diverged


def _ends(steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> MetricSummary:
    lowest, highest = int(values.argmin()), int(values.argmax())
    return MetricSummary(
        first_step=int(steps[0]),
        first=float(values[0]),
        last_step=int(steps[-1]),
        last=float(values[-1]),
        lowest=float(values[lowest]),
        lowest_step=int(steps[lowest]),
        highest=float(values[highest]),
        highest_step=int(steps[highest]),
        points=len(steps),
    )


def _analyses(session: Session, experiment_id: str) -> tuple[list[AnalysisFacts], int]:
    """Return the newest analyses with their results, and the number of all analyses.

    The list and the number include the analyses of jobs that used a checkpoint of the experiment.
    """
    made = select(Experiment.id).where(
        Experiment.type == ExperimentType.ANALYSIS, Experiment.source_experiment_id == experiment_id
    )
    mine = or_(Analysis.experiment_id == experiment_id, Analysis.experiment_id.in_(made))
    query = select(Analysis).where(mine).options(undefer(Analysis.result))
    rows = session.scalars(query.order_by(Analysis.created_at.desc(), Analysis.id.desc()).limit(MOST_ANALYSES))
    facts = [AnalysisFacts(row.id, row.kind, row.name, row.created_at, row.result) for row in rows]
    return facts, session.scalar(select(func.count()).select_from(Analysis).where(mine)) or 0


def _defaults(context: Context) -> dict[str, Any]:
    """Return the default configuration as {path of the key: value}. The keys of the controller have the prefix
    `rl.`."""
    language = _read_defaults(context, "base_config.yaml", load_lm_config)
    controller = _read_defaults(context, "rl_config.yaml", load_rl_config)
    return {**flat(language), **flat(controller, "rl")}


def _read_defaults(context: Context, name: str, load: Callable[..., LMConfig | RLConfig]) -> dict[str, Any]:
    """Return the values of the shipped configuration file, which the dashboard also uses for comparison.

    If the file does not exist, return the default values of the code. If the file is invalid, return an empty mapping.
    """
    try:
        path = find_config(context.settings.config_dir, name)
    except NotFoundError:
        path = None
    try:
        return load(path).model_dump(mode="json")
    except TidalError:
        return {}
