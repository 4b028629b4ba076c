"""Methods of `Client` for analyses: compute, save, list, show, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .connection import ApiConnection, request_body
from .errors import UnavailableError
from .wire.analysis import AnalysisList, AnalysisProgress, AnalysisResult, AnalysisSummary, SavedAnalysis
from .wire.generation_event import EVENT_DONE


class AnalysisCalls(ApiConnection):
    """Methods of `Client` for analyses."""

    def analyze(
        self,
        checkpoint: str,
        prompts: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] = lambda tokens, max_tokens: None,
        **fields: Any,
    ) -> AnalysisResult:
        """Generate completions of the prompts and analyse their modulations.

        `fields` are the fields of the request in snake_case (rl_checkpoint, kind, samples_per_prompt, max_tokens,
        gating_mode, modulation, seed, bootstrap, include_extreme_values). `on_progress` is called with the number of
        tokens generated so far and the maximum number of tokens of the analysis. Raises InvalidInputError if a
        completion is empty, or with the code `analysis_too_long` if the analysis takes too long for one request; in
        that case, submit a job of type analysis.
        """
        body = request_body(checkpoint=checkpoint, prompts=list(prompts), stream=True, **fields)
        for event in self._stream_post("/api/analyze-trajectories", body):
            if event.name == "progress":
                progress = AnalysisProgress.model_validate(event.data)
                on_progress(progress.tokens, progress.most_tokens)
            elif event.name == EVENT_DONE:
                return AnalysisResult.model_validate(event.data)
        raise UnavailableError("the connection ended before the analysis was complete; try again")

    def save_analysis(self, experiment_id: str, result: AnalysisResult, *, name: str | None = None) -> SavedAnalysis:
        """Save an analysis result in an experiment. Raises NotFoundError if there is no such experiment."""
        body = request_body(name=name, result=result.model_dump(mode="json", by_alias=True))
        return self._post(SavedAnalysis, f"/api/experiments/{experiment_id}/analyses", body)

    def analyses(self, experiment_id: str, *, kind: str | None = None, limit: int | None = 50) -> list[AnalysisSummary]:
        """Return the newest analyses of an experiment without their results: at most `limit`, or all if it is None."""
        found: list[AnalysisSummary] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = 100 if limit is None else min(limit - len(found), 100)
            path = f"/api/experiments/{experiment_id}/analyses"
            page = self._get(AnalysisList, path, kind=kind, limit=size, cursor=cursor)
            found += page.analyses
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def analysis(self, analysis_id: str) -> SavedAnalysis:
        """Return a saved analysis with its result. Raises NotFoundError."""
        return self._get(SavedAnalysis, f"/api/analyses/{analysis_id}")

    def delete_analysis(self, analysis_id: str) -> None:
        """Delete a saved analysis. Raises NotFoundError, or ConflictError if the job that created it has not ended."""
        self._request("DELETE", f"/api/analyses/{analysis_id}")
