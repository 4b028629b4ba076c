"""Methods of `AsyncClient` for experiments: list, show, change, delete, metrics, results, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ..requests import file_path, segment
from ..wire.checkpoint import CheckpointGroup, CheckpointList, CheckpointOverview, CheckpointReply
from ..wire.experiment import (
    ConfigReply,
    ExperimentDetail,
    ExperimentList,
    ExperimentReply,
    ExperimentStatus,
    ResultReply,
    Sample,
    SampleHistory,
    SampleList,
    TagList,
)
from ..wire.metrics import MetricsReply
from ..wire.vocabulary import VocabularyDetail
from .files import AsyncFileCalls

_KEEP: Any = object()


class AsyncExperimentCalls(AsyncFileCalls):
    """Methods of `AsyncClient` for experiments and checkpoints."""

    async def experiments(
        self,
        *,
        kind: str | Sequence[str] | None = None,
        status: str | None = None,
        tag: str | None = None,
        search: str | None = None,
        limit: int | None = 20,
    ) -> list[ExperimentReply]:
        """Return the newest experiments that match all given filters: at most `limit`, or all if it is None.

        `kind` selects types (lm, rl, …). Without it, experiments of all types except dataset are returned. `status`
        selects experiments whose newest job has this status, `search` those whose id or name contains the text.
        """
        query: dict[str, Any] = {"type": kind, "status": status, "tag": tag, "search": search}
        return await self._pages(
            ExperimentList, "/api/experiments", lambda page: page.experiments, limit=limit, **query
        )

    async def experiment_tags(self) -> list[str]:
        """Return all tags of experiments, in alphabetical order."""
        return (await self._get(TagList, "/api/experiments/tags")).tags

    async def experiment(self, experiment_id: str) -> ExperimentDetail:
        """Return an experiment. Raises NotFoundError."""
        return await self._get(ExperimentDetail, f"/api/experiments/{segment(experiment_id)}")

    async def change_experiment(
        self,
        experiment_id: str,
        *,
        name: str | None = _KEEP,
        tags: Sequence[str] = _KEEP,
        notes: str | None = _KEEP,
    ) -> ExperimentDetail:
        """Change the given fields of an experiment. None removes the name or the notes. Raises NotFoundError."""
        given = {"name": name, "tags": tags, "notes": notes}
        body = {field: value for field, value in given.items() if value is not _KEEP}
        reply = await self._request("PATCH", f"/api/experiments/{segment(experiment_id)}", json=body)
        return ExperimentDetail.model_validate_json(reply.content)

    async def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment with its jobs, checkpoints, metrics and logs.

        Raises NotFoundError, or ConflictError if a job that uses the experiment has not ended.
        """
        await self._request("DELETE", f"/api/experiments/{segment(experiment_id)}")

    async def experiment_status(self, experiment_id: str) -> ExperimentStatus:
        """Return status, progress and error of the newest job of an experiment. Raises NotFoundError."""
        return await self._get(ExperimentStatus, f"/api/experiments/{segment(experiment_id)}/status")

    async def experiment_config(self, experiment_id: str) -> ConfigReply:
        """Return the configuration of an experiment with all defaults filled in. Raises NotFoundError."""
        return await self._get(ConfigReply, f"/api/experiments/{segment(experiment_id)}/config")

    async def vocabulary(self, experiment_id: str) -> VocabularyDetail:
        """Return the vocabulary of an experiment's language model. Raises NotFoundError as long as it is unknown."""
        return await self._get(VocabularyDetail, f"/api/experiments/{segment(experiment_id)}/vocabulary")

    async def metrics(
        self,
        experiment_id: str,
        *,
        keys: Sequence[str] | None = None,
        rl: bool = False,
        mode: Literal["recent", "historical"] = "historical",
        window: int | None = None,
        max_points: int | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> MetricsReply:
        """Return the metrics of an experiment, downsampled by the server to `max_points` per metric, by default 2,000.

        `rl` selects the metrics of a controller's training, whose steps are environment steps. With mode recent, only
        the last `window` points of each metric are used, by default 5,000.
        """
        return await self._get(
            MetricsReply,
            f"/api/experiments/{segment(experiment_id)}/{'rl-metrics' if rl else 'metrics'}",
            keys=",".join(keys) if keys else None,
            mode=mode,
            window=window,
            maxPoints=max_points,
            fromStep=from_step,
            toStep=to_step,
        )

    async def evaluation(self, experiment_id: str) -> dict[str, Any]:
        """Return the content of evaluation_results.json. Raises NotFoundError if there is no such file."""
        return await self._result(experiment_id, "evaluation")

    async def ablation(self, experiment_id: str) -> dict[str, Any]:
        """Return the content of ablation_results.json. Raises NotFoundError if there is no such file."""
        return await self._result(experiment_id, "ablation")

    async def headroom(self, experiment_id: str) -> dict[str, Any]:
        """Return the content of headroom_results.json. Raises NotFoundError if there is no such file."""
        return await self._result(experiment_id, "headroom")

    async def samples(self, experiment_id: str) -> list[Sample]:
        """Return the completions that the evaluation generated. Raises NotFoundError as long as there are none."""
        return (await self._get(SampleList, f"/api/experiments/{segment(experiment_id)}/samples")).samples

    async def sample_history(self, experiment_id: str, *, max_rows: int | None = None) -> SampleHistory:
        """Return the completions that a training generated every few steps; at most `max_rows` steps, by default 200.

        Raises NotFoundError if the training has generated none so far.
        """
        path = f"/api/experiments/{segment(experiment_id)}/sample-history"
        return await self._get(SampleHistory, path, maxRows=max_rows)

    async def all_checkpoints(self, *, limit: int | None = 50) -> list[CheckpointGroup]:
        """Return the checkpoints of the newest experiments: of at most `limit`, or of all if it is None."""
        return await self._pages(CheckpointOverview, "/api/checkpoints", lambda page: page.experiments, limit=limit)

    async def checkpoints(self, experiment_id: str) -> list[CheckpointReply]:
        """Return the checkpoints of an experiment, newest first."""
        path = f"/api/experiments/{segment(experiment_id)}/checkpoints"
        return (await self._get(CheckpointList, path)).checkpoints

    async def download_checkpoint(
        self,
        experiment_id: str,
        name: str,
        to: Path,
        *,
        file_format: Literal["safetensors", "pth"] | None = None,
        on_progress: Callable[[int], None] = lambda received: None,
    ) -> Path:
        """Write a checkpoint to the file `to` and return it. Replaces an existing file.

        `name` is a name from the list of checkpoints, or best, latest or final; `tokenizer.json` is the vocabulary of a
        model that has its own. A final model exists in both formats. `on_progress` is called with the number of bytes
        received so far. A download continues after a broken connection. Raises NotFoundError, and OSError if the file
        cannot be written.
        """
        path = f"/api/experiments/{segment(experiment_id)}/checkpoints/{file_path(name)}"
        return await self._download(path, to, on_progress=on_progress, format=file_format)

    async def delete_checkpoint(self, experiment_id: str, name: str) -> None:
        """Delete a checkpoint, by its name in the list. Raises NotFoundError, or ConflictError if a job needs it."""
        path = f"/api/experiments/{segment(experiment_id)}/checkpoints/{file_path(name)}"
        await self._request("DELETE", path)

    async def _result(self, experiment_id: str, name: str) -> dict[str, Any]:
        return (await self._get(ResultReply, f"/api/experiments/{segment(experiment_id)}/{name}")).result
