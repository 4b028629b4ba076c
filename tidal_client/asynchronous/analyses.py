"""Methods of `AsyncClient` for analyses: compute, save, list, show, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from ..errors import UnavailableError
from ..requests import request_body, segment
from ..wire.analysis import (
    AnalysesDeleted,
    AnalysisList,
    AnalysisProgress,
    AnalysisResult,
    AnalysisSummary,
    SavedAnalysis,
)
from ..wire.generation_event import EVENT_DONE
from .connection import AsyncApiConnection


class AsyncAnalysisCalls(AsyncApiConnection):
    """Methods of `AsyncClient` for analyses."""

    async def analyze(
        self,
        checkpoint: str,
        prompts: Sequence[str],
        *,
        rl_checkpoint: str | None = None,
        kind: str | None = None,
        samples_per_prompt: int | None = None,
        max_tokens: int | None = None,
        gating_mode: str | None = None,
        modulation: float | None = None,
        seed: int | None = None,
        bootstrap: bool | None = None,
        include_extreme_values: bool | None = None,
        on_progress: Callable[[int, int], None] = lambda tokens, max_tokens: None,
    ) -> AnalysisResult:
        """Generate completions of the prompts and analyse their modulations. A field that is None has the api's
        default.

        `on_progress` is called with the number of tokens generated so far and the maximum number of tokens of the
        analysis. Raises InvalidInputError if a completion is empty, or with the code `analysis_too_long` if the
        analysis takes too long for one request; in that case, submit a job of type analysis.
        """
        body: dict[str, Any] = request_body(
            checkpoint=checkpoint,
            prompts=list(prompts),
            rl_checkpoint=rl_checkpoint,
            kind=kind,
            samples_per_prompt=samples_per_prompt,
            max_tokens=max_tokens,
            gating_mode=gating_mode,
            modulation=modulation,
            seed=seed,
            bootstrap=bootstrap,
            include_extreme_values=include_extreme_values,
            stream=True,
        )
        async with aclosing(self._stream_post("/api/analyze-trajectories", body)) as events:
            async for event in events:
                if event.name == "progress":
                    progress = AnalysisProgress.model_validate(event.data)
                    on_progress(progress.tokens, progress.most_tokens)
                elif event.name == EVENT_DONE:
                    return AnalysisResult.model_validate(event.data)
        raise UnavailableError("the connection ended before the analysis was complete; try again")

    async def save_analysis(
        self, experiment_id: str, result: AnalysisResult, *, name: str | None = None
    ) -> SavedAnalysis:
        """Save an analysis result in an experiment. Raises NotFoundError if there is no such experiment."""
        body = request_body(name=name, result=result.model_dump(mode="json", by_alias=True))
        return await self._post(SavedAnalysis, f"/api/experiments/{segment(experiment_id)}/analyses", body)

    async def analyses(
        self, experiment_id: str, *, kind: str | None = None, derived: bool | None = None, limit: int | None = 50
    ) -> list[AnalysisSummary]:
        """Return the newest analyses of an experiment without their results: at most `limit`, or all if it is None.

        If `derived` is False, analyses from jobs that used this experiment's checkpoints are left out.
        """
        path = f"/api/experiments/{segment(experiment_id)}/analyses"
        return await self._pages(
            AnalysisList, path, lambda page: page.analyses, limit=limit, kind=kind, derived=derived
        )

    async def analysis(self, analysis_id: str) -> SavedAnalysis:
        """Return a saved analysis with its result. Raises NotFoundError."""
        return await self._get(SavedAnalysis, f"/api/analyses/{segment(analysis_id)}")

    async def delete_analysis(self, analysis_id: str) -> None:
        """Delete a saved analysis. Raises NotFoundError, or ConflictError if the job that created it has not ended."""
        await self._request("DELETE", f"/api/analyses/{segment(analysis_id)}")

    async def delete_analyses(self, experiment_id: str) -> int:
        """Delete all analyses that are saved with an experiment, and return their number.

        Raises NotFoundError, or ConflictError if a job that may save another one has not ended.
        """
        reply = await self._request("DELETE", f"/api/experiments/{segment(experiment_id)}/analyses")
        return AnalysesDeleted.model_validate_json(reply.content).deleted
