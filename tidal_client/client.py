"""`Client`: typed calls of the Tidal API.

    with Client("http://127.0.0.1:4400", token) as client:
        job = client.submit_job("lm-training", config={"data": {"source": "builtin:stories"}})
        for event in client.follow_experiment(job.experiment_id): ...

Every failure raises an exception of `tidal_client.errors`. A client is synchronous, has one connection pool, and may be
shared between threads. Its methods for analyses are in `analyses`, for reports in `reports`, and for datasets in
`datasets`. It has no methods for downloads.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from .analyses import AnalysisCalls
from .connection import GENERATE_SECONDS, request_body
from .datasets import DatasetCalls
from .errors import NotFoundError
from .reports import ReportCalls
from .sse import StreamEvent, follow
from .wire.checkpoint import CheckpointList, CheckpointReply
from .wire.experiment import ExperimentDetail, ExperimentList, ExperimentReply, ResultReply, SampleHistory
from .wire.generation import GenerateReply
from .wire.job import JobDetail, JobEventList, JobEventReply, JobList, JobReply, LogLine, LogPage
from .wire.metrics import MetricsReply
from .wire.queue import QueueList, QueueReply
from .wire.vocabulary import VocabularyDetail


class Client(AnalysisCalls, ReportCalls, DatasetCalls):
    """A client of one api server. `token` is required for every call that changes something."""

    def submit_job(
        self,
        job_type: str,
        *,
        config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobDetail:
        """Submit a job and return it.

        `fields` are the fields of the request in snake_case (config_path, checkpoint, data, name, tags, …). If the
        connection breaks, repeat the call with the same `idempotency_key`: it returns the job that the first call has
        created, instead of a second one.
        """
        body = request_body(type=job_type, config=dict(config) if config else None, **fields)
        return self._post(JobDetail, "/api/jobs", body, {"Idempotency-Key": idempotency_key or uuid.uuid4().hex})

    def predict_job(self, job_type: str, **fields: Any) -> dict[str, Any]:
        """Return what the submission of this job would do, without submitting it (`dryRun`)."""
        reply = self._request(
            "POST", "/api/jobs", json=request_body(type=job_type, **fields), params={"dryRun": "true"}
        )
        prediction: dict[str, Any] = reply.json()
        return prediction

    def job(self, job_id: str) -> JobDetail:
        """Return a job with its payload. Raises NotFoundError."""
        return self._get(JobDetail, f"/api/jobs/{job_id}")

    def jobs(
        self, *, status: str | None = None, job_type: str | None = None, tag: str | None = None, limit: int | None = 20
    ) -> list[JobReply]:
        """Return the newest jobs that match all given filters: at most `limit`, or all if it is None."""
        found: list[JobReply] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = 100 if limit is None else min(limit - len(found), 100)
            query = {"status": status, "type": job_type, "tag": tag, "limit": size}
            page = self._get(JobList, "/api/jobs", cursor=cursor, **query)
            found += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                break
        return found[:limit]

    def signal_job(self, job_id: str, signal: str) -> JobDetail:
        """Send a signal: pause, resume, complete or stop. Raises ConflictError if the status does not allow it."""
        return self._post(JobDetail, f"/api/jobs/{job_id}/signal", {"signal": signal})

    def cancel_job(self, job_id: str) -> JobDetail:
        """Stop a job. If its trainer still runs when the grace period ends, the trainer is killed."""
        return self._post(JobDetail, f"/api/jobs/{job_id}/cancel", None)

    def queues(self, *, limit: int = 100) -> list[QueueReply]:
        """Return every queue with its workers and the first `limit` waiting jobs of each type."""
        return self._get(QueueList, "/api/queue", limit=limit).queues

    def job_events(self, job_id: str) -> list[JobEventReply]:
        """Return all events of a job, oldest first."""
        found: list[JobEventReply] = []
        cursor: str | None = None
        while True:
            page = self._get(JobEventList, f"/api/jobs/{job_id}/events", limit=1000, cursor=cursor)
            found += page.events
            cursor = page.next_cursor
            if cursor is None:
                return found

    def job_logs(self, job_id: str, *, cursor: str | None = None, search: str | None = None) -> LogPage:
        """Return the page of a job's log after `cursor`; with `search`, only lines with this text, ignoring case."""
        return self._get(LogPage, f"/api/jobs/{job_id}/logs", cursor=cursor, search=search)

    def last_log_lines(self, job_id: str, count: int) -> list[LogLine]:
        """Return the last `count` lines of a job's log. It downloads the whole log for this."""
        last: deque[LogLine] = deque(maxlen=count)
        cursor: str | None = None
        while True:
            page = self._get(LogPage, f"/api/jobs/{job_id}/logs", limit=5000, cursor=cursor)
            last.extend(page.lines)
            cursor = page.next_cursor
            if page.complete or cursor is None:
                return list(last)

    def experiments(
        self, *, kind: str | None = None, status: str | None = None, limit: int = 20
    ) -> list[ExperimentReply]:
        """Return the newest experiments: at most `limit`, which must not exceed 200.

        `kind` selects a type (lm, rl, …). Without it, experiments of all types except dataset are returned. `status`
        selects experiments whose newest job has this status.
        """
        return self._get(ExperimentList, "/api/experiments", type=kind, status=status, limit=limit).experiments

    def experiment(self, experiment_id: str) -> ExperimentDetail:
        """Return an experiment. Raises NotFoundError."""
        return self._get(ExperimentDetail, f"/api/experiments/{experiment_id}")

    def vocabulary(self, experiment_id: str) -> VocabularyDetail:
        """Return the vocabulary of an experiment's language model. Raises NotFoundError as long as it is unknown."""
        return self._get(VocabularyDetail, f"/api/experiments/{experiment_id}/vocabulary")

    def metrics(self, experiment_id: str, *, keys: list[str] | None = None, rl: bool = False) -> MetricsReply:
        """Return the metrics of all steps of an experiment, downsampled by the server."""
        path = f"/api/experiments/{experiment_id}/{'rl-metrics' if rl else 'metrics'}"
        return self._get(MetricsReply, path, keys=",".join(keys) if keys else None, mode="historical")

    def evaluation(self, experiment_id: str) -> dict[str, Any]:
        """Return the content of evaluation_results.json. Raises NotFoundError if there is no such file."""
        return self._result(experiment_id, "evaluation")

    def sample_history(self, experiment_id: str, *, max_rows: int | None = None) -> SampleHistory:
        """Return the completions that a training generated every few steps; at most `max_rows` steps, by default 200.

        Raises NotFoundError if the training has generated none so far.
        """
        return self._get(SampleHistory, f"/api/experiments/{experiment_id}/sample-history", maxRows=max_rows)

    def ablation(self, experiment_id: str) -> dict[str, Any]:
        """Return the content of ablation_results.json. Raises NotFoundError if there is no such file."""
        return self._result(experiment_id, "ablation")

    def checkpoints(self, experiment_id: str) -> list[CheckpointReply]:
        """Return the checkpoints of an experiment, newest first."""
        return self._get(CheckpointList, f"/api/experiments/{experiment_id}/checkpoints").checkpoints

    def follow_experiment(
        self, experiment_id: str, *, since: str | None = None, log_lines: bool = True
    ) -> Iterator[StreamEvent]:
        """Yield the live events of an experiment after the event id `since`.

        The events are snapshot, metrics, rl-metrics, status, job-update, checkpoint and log-lines. If `log_lines` is
        False, `log-lines` events omit the lines; their field `next` is the number of the next line.
        """
        if not log_lines:
            try:
                events = self._follow_topic(f"experiments/{experiment_id}/brief", since=since)
                yield next(events)
            except NotFoundError:  # unknown experiment, or an older api, which has no topic `…/brief`
                pass
            else:
                yield from events
                return
        yield from follow(self._connect(f"/api/experiments/{experiment_id}/stream"), since=since)

    def follow_job(self, job_id: str, *, since: str | None = None) -> Iterator[StreamEvent]:
        """Yield the live events of a job after the event id `since`: snapshot, job-update, status, log-lines."""
        return follow(self._connect(f"/api/jobs/{job_id}/stream"), since=since)

    def generate(self, checkpoint: str, prompt: str, **fields: Any) -> GenerateReply:
        """Generate a completion of `prompt`.

        `fields` are the fields of the request in snake_case (max_tokens, gating_mode, modulation, …).
        """
        body = request_body(checkpoint=checkpoint, prompt=prompt, **fields)
        reply = self._request("POST", "/api/generate", json=body, timeout=GENERATE_SECONDS)
        return GenerateReply.model_validate(reply.json())

    def generate_stream(self, checkpoint: str, prompt: str, **fields: Any) -> Generator[StreamEvent]:
        """Generate a completion; yield an event `token` for each token, and then `done` with the complete reply.

        `fields` are those of `generate`. Raises the error that the engine reports. Closing the returned generator
        closes the connection, which stops the generation on the server.
        """
        body = request_body(checkpoint=checkpoint, prompt=prompt, stream=True, **fields)
        yield from self._stream_post("/api/generate", body)

    def _result(self, experiment_id: str, name: str) -> dict[str, Any]:
        return self._get(ResultReply, f"/api/experiments/{experiment_id}/{name}").result
