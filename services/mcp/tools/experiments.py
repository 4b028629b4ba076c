"""Tools that read experiments: list, status, configuration, metrics, results, checkpoints, machines."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from common.errors import InvalidInputError
from services.mcp.access import Access
from services.mcp.summary import select
from services.mcp.tools.arguments import BUDGET, ExperimentId, Limit, MaxTokens, Part
from tidal_client import AsyncClient, ExperimentReply
from tidal_client.wire.metrics import MetricsReply

Keys = Annotated[list[str] | None, Field(description="Names of the metrics; null for all.")]
Points = Annotated[
    int, Field(ge=0, le=2000, description="Maximum number of points per metric; with 0, only the figures.")
]
Step = Annotated[int | None, Field(ge=0)]


class ExperimentTools:
    """Tools about experiments."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_experiments(
        self,
        context: Context[Any, Any],
        kind: Annotated[
            str | None,
            Field(description="lm, rl, evaluation, ablation, analysis or dataset; null for all but dataset."),
        ] = None,
        status: Annotated[str | None, Field(description="Status of the newest job, such as completed.")] = None,
        tag: str | None = None,
        search: Annotated[str | None, Field(description="Text that the id or the name contains.")] = None,
        limit: Limit = 20,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """List experiments, newest first, with status and progress."""
        client = self._access.client(context)
        found = await client.experiments(kind=kind, status=status, tag=tag, search=search, limit=limit)
        return self._access.reply({"experiments": [brief_experiment(each) for each in found]}, max_tokens)

    async def get_status(
        self, context: Context[Any, Any], experiment_id: ExperimentId, max_tokens: MaxTokens = BUDGET
    ) -> str:
        """Show an experiment: status, progress, error, what happens next, and which metrics and results it has."""
        client = self._access.client(context)
        found = await client.experiment(experiment_id)
        status = await client.experiment_status(experiment_id)
        result: dict[str, Any] = {
            **brief_experiment(found),
            "notes": found.notes,
            "attempt": status.attempt,
            "error": status.error and status.error.model_dump(by_alias=True),
            "finishedAt": status.finished_at,
            "startedFrom": found.source_checkpoint or found.source_experiment_id,
            "metrics": found.metric_names,
            "rlMetrics": found.rl_metric_names,
            "results": found.results,
        }
        if found.job_id is not None and status.finished_at is None:
            result["whatNext"] = (await client.job(found.job_id)).what_next
        return self._access.reply(without_empty(result), max_tokens)

    async def get_config(
        self,
        context: Context[Any, Any],
        experiment_id: Annotated[str | None, Field(description="Id of the experiment.")] = None,
        file: Annotated[
            str | None, Field(description="A configuration file of the server; null with both lists them.")
        ] = None,
        part: Part = None,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Show the complete configuration of an experiment, or of a file on the server; or list these files."""
        client = self._access.client(context)
        if experiment_id is not None and file is not None:
            raise InvalidInputError("give experiment_id or file, not both")
        if experiment_id is not None:
            await client.experiment(experiment_id)
            found = await client.experiment_config(experiment_id)
            values: Any = without_empty({"config": found.config, "rlConfig": found.rl_config})
        elif file is not None:
            content = await client.config(file)
            values = {"config": content.config, "kind": content.kind, "problem": content.problem}
        else:
            return self._access.reply({"files": [each.model_dump() for each in await client.configs()]}, max_tokens)
        return self._access.reply({"result": select(values, part)}, max_tokens, hint=_PART_HINT)

    async def get_metrics(
        self,
        context: Context[Any, Any],
        experiment_id: ExperimentId,
        keys: Keys = None,
        points: Points = 12,
        from_step: Step = None,
        to_step: Step = None,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Show the metrics of pretraining: for each metric first, last, lowest and highest value, and some points."""
        return await self._metrics(context, experiment_id, False, keys, points, from_step, to_step, max_tokens)

    async def get_rl_metrics(
        self,
        context: Context[Any, Any],
        experiment_id: ExperimentId,
        keys: Keys = None,
        points: Points = 12,
        from_step: Step = None,
        to_step: Step = None,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Show the metrics of controller training, like get_metrics. A step is one environment step."""
        return await self._metrics(context, experiment_id, True, keys, points, from_step, to_step, max_tokens)

    async def get_evaluation(
        self, context: Context[Any, Any], experiment_id: ExperimentId, part: Part = None, max_tokens: MaxTokens = BUDGET
    ) -> str:
        """Show the evaluation of an experiment: validation loss, perplexity, bits per byte, samples."""
        client = self._access.client(context)
        await client.experiment(experiment_id)
        found = select(await client.evaluation(experiment_id), part)
        return self._access.reply({"result": found}, max_tokens, hint=_PART_HINT)

    async def get_ablation(
        self, context: Context[Any, Any], experiment_id: ExperimentId, part: Part = None, max_tokens: MaxTokens = BUDGET
    ) -> str:
        """Show the ablation of an experiment: mean, deviation and confidence interval of each policy."""
        client = self._access.client(context)
        await client.experiment(experiment_id)
        found = select(await client.ablation(experiment_id), part)
        return self._access.reply({"result": found}, max_tokens, hint=_PART_HINT)

    async def get_checkpoints(
        self, context: Context[Any, Any], experiment_id: ExperimentId, max_tokens: MaxTokens = BUDGET
    ) -> str:
        """List the checkpoints of an experiment, newest first, with the reference by which other tools name them."""
        client = self._access.client(context)
        await client.experiment(experiment_id)
        found = [
            without_empty(
                {
                    "reference": each.reference,
                    "kind": each.kind,
                    "step": each.step,
                    "sizeBytes": each.size_bytes,
                    "best": each.best or None,
                    "generates": each.usable_as_base or None,
                    "controller": each.usable_as_policy or None,
                }
            )
            for each in await client.checkpoints(experiment_id)
        ]
        return self._access.reply({"checkpoints": found}, max_tokens)

    async def get_gpu_instance(
        self, context: Context[Any, Any], experiment_id: ExperimentId, max_tokens: MaxTokens = BUDGET
    ) -> str:
        """Show where an experiment ran: worker and machine of each attempt, and the device that was measured."""
        client = self._access.client(context)
        found = []
        for job in reversed(await client.jobs(experiment=experiment_id, limit=None)):
            detail = await client.job(job.id)
            claims = [each for each in await client.job_events(job.id) if each.event == "claimed"]
            measured = detail.measurement
            found.append(
                without_empty(
                    {
                        "job": job.id,
                        "status": job.status,
                        "attempts": [
                            {"attempt": each.attempt, "worker": each.details.get("worker"), "began": each.at}
                            for each in claims
                        ],
                        "device": measured and measured.device,
                        "machine": measured and measured.machine,
                        "tokensPerSecond": measured and measured.tokens_per_second,
                        "memoryBytes": measured and measured.memory_bytes,
                    }
                )
            )
        if not found:
            await client.experiment(experiment_id)  # raises NotFoundError if there is no such experiment
        workers = {worker.worker: worker for queue in await client.queues(limit=0) for worker in queue.workers or []}
        present = [worker.model_dump(by_alias=True) for worker in workers.values()]
        return self._access.reply({"jobs": found, "workersNow": present}, max_tokens)

    async def _metrics(
        self,
        context: Context[Any, Any],
        experiment_id: str,
        rl: bool,
        keys: list[str] | None,
        points: int,
        from_step: int | None,
        to_step: int | None,
        max_tokens: int,
    ) -> str:
        client = self._access.client(context)
        metrics = await known_metrics(client, experiment_id, rl=rl, keys=keys, from_step=from_step, to_step=to_step)
        result = {
            "experiment": experiment_id,
            "totalPoints": metrics.total_points,
            "metrics": {key: figures(metrics, key, points) for key in metrics.keys if metrics.series.get(key)},
            "diverged": metrics.diverged or None,
            "available": metrics.available_keys if not metrics.keys else None,
        }
        hint = "name single metrics in `keys`, or a range of steps; points=0 returns only the figures"
        return self._access.reply(without_empty(result), max_tokens, hint=hint)


_PART_HINT = "name a `part`, such as one of the keys, or raise max_tokens"


async def known_metrics(client: AsyncClient, experiment_id: str, **options: Any) -> MetricsReply:
    """Return the metrics of an experiment. Asks for the experiment first, so that the reply can be cached."""
    await client.experiment(experiment_id)
    return await client.metrics(experiment_id, **options)


def figures(metrics: MetricsReply, key: str, points: int) -> dict[str, Any]:
    """Return first, last, lowest and highest point of a metric as [step, value], and at most `points` points."""
    series = [[point.step, point.value] for point in metrics.series[key]]
    found: dict[str, Any] = {
        "first": series[0],
        "last": series[-1],
        "lowest": min(series, key=lambda point: point[1]),
        "highest": max(series, key=lambda point: point[1]),
    }
    if points:
        count = min(points, len(series))
        chosen = {round(n * (len(series) - 1) / max(count - 1, 1)) for n in range(count)}
        found["points"] = [series[n] for n in sorted(chosen)]
    return found


def brief_experiment(experiment: ExperimentReply) -> dict[str, Any]:
    """Return what a list shows of an experiment."""
    progress = experiment.progress
    return without_empty(
        {
            "id": experiment.id,
            "name": experiment.name,
            "type": experiment.type,
            "status": experiment.status,
            "job": experiment.job_id,
            "step": progress and progress.step,
            "totalSteps": progress and progress.total_steps,
            "etaSeconds": progress and progress.eta_seconds,
            "tags": experiment.tags,
            "createdAt": experiment.created_at,
        }
    )


def without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that have a value: not None, and no empty text, list or mapping."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", [], {})}
