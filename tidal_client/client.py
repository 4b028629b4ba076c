"""`Client`: the api of Tidal as typed calls.

    with Client("http://127.0.0.1:4400", token) as client:
        job = client.submit_job("lm-training", config={"data": {"source": "builtin:stories"}})
        for event in client.follow_experiment(job.experiment_id): ...

Every failure is an exception of `tidal_client.errors`. Synchronous; one connection pool; safe to share between threads.
Leaves out: downloads. Calls on analyses are in `analyses`, on reports in `reports`, on datasets in `datasets`.
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
from .sse import Event, follow
from .wire.checkpoint import CheckpointList, CheckpointReply
from .wire.experiment import ExperimentDetail, ExperimentList, ExperimentReply, ResultReply
from .wire.generation import GenerateReply
from .wire.job import JobDetail, JobEventList, JobEventReply, JobList, JobReply, LogLine, LogPage
from .wire.metrics import MetricsReply
from .wire.queue import QueueList, QueueReply


class Client(AnalysisCalls, ReportCalls, DatasetCalls):
    """A connection to one api. `token` is needed for everything that changes something."""

    def submit_job(
        self,
        job_type: str,
        *,
        config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> JobDetail:
        """Submit a job; `fields` are those of the api in snake_case (config_path, checkpoint, data, name, tags, …).

        The request carries an Idempotency-Key, so repeating the call with the same key after a broken connection
        makes no second job.
        """
        body = request_body(type=job_type, config=dict(config) if config else None, **fields)
        return self._post(JobDetail, "/api/jobs", body, {"Idempotency-Key": idempotency_key or uuid.uuid4().hex})

    def predict_job(self, job_type: str, **fields: Any) -> dict[str, Any]:
        """What a submission would do, without doing it (`dryRun`)."""
        reply = self._request(
            "POST", "/api/jobs", json=request_body(type=job_type, **fields), params={"dryRun": "true"}
        )
        prediction: dict[str, Any] = reply.json()
        return prediction

    def job(self, job_id: str) -> JobDetail:
        """One job, with its payload. NotFoundError."""
        return self._get(JobDetail, f"/api/jobs/{job_id}")

    def jobs(
        self, *, status: str | None = None, job_type: str | None = None, tag: str | None = None, limit: int | None = 20
    ) -> list[JobReply]:
        """The newest jobs that match, at most `limit`; None: all."""
        found: list[JobReply] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = 100 if limit is None else min(limit - len(found), 100)
            wanted = {"status": status, "type": job_type, "tag": tag, "limit": size}
            page = self._get(JobList, "/api/jobs", cursor=cursor, **wanted)
            found += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                break
        return found[:limit]

    def signal_job(self, job_id: str, signal: str) -> JobDetail:
        """pause, resume, complete or stop. ConflictError when its status does not take the signal."""
        return self._post(JobDetail, f"/api/jobs/{job_id}/signal", {"signal": signal})

    def cancel_job(self, job_id: str) -> JobDetail:
        """Stop it, and kill it at the end of the grace."""
        return self._post(JobDetail, f"/api/jobs/{job_id}/cancel", None)

    def queues(self, *, limit: int = 100) -> list[QueueReply]:
        """Every queue with its workers and the first `limit` waiting jobs of each type."""
        return self._get(QueueList, "/api/queue", limit=limit).queues

    def job_events(self, job_id: str) -> list[JobEventReply]:
        """Everything that happened to a job, in order."""
        found: list[JobEventReply] = []
        cursor: str | None = None
        while True:
            page = self._get(JobEventList, f"/api/jobs/{job_id}/events", limit=1000, cursor=cursor)
            found += page.events
            cursor = page.next_cursor
            if cursor is None:
                return found

    def job_logs(self, job_id: str, *, cursor: str | None = None, search: str | None = None) -> LogPage:
        """A page of its log after `cursor`; with `search` only lines that contain it, whatever the case of letters."""
        return self._get(LogPage, f"/api/jobs/{job_id}/logs", cursor=cursor, search=search)

    def last_log_lines(self, job_id: str, count: int) -> list[LogLine]:
        """The newest `count` lines of its log; reads all of it."""
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
        """The newest experiments of this type (lm, rl, …) whose newest job has this status; at most 200.

        Without a type those of all types but dataset.
        """
        return self._get(ExperimentList, "/api/experiments", type=kind, status=status, limit=limit).experiments

    def experiment(self, experiment_id: str) -> ExperimentDetail:
        """One experiment. NotFoundError."""
        return self._get(ExperimentDetail, f"/api/experiments/{experiment_id}")

    def metrics(self, experiment_id: str, *, keys: list[str] | None = None, rl: bool = False) -> MetricsReply:
        """The whole course of an experiment's metrics, downsampled by the server."""
        path = f"/api/experiments/{experiment_id}/{'rl-metrics' if rl else 'metrics'}"
        return self._get(MetricsReply, path, keys=",".join(keys) if keys else None, mode="historical")

    def evaluation(self, experiment_id: str) -> dict[str, Any]:
        """evaluation_results.json. NotFoundError when there is none."""
        return self._result(experiment_id, "evaluation")

    def ablation(self, experiment_id: str) -> dict[str, Any]:
        """ablation_results.json. NotFoundError when there is none."""
        return self._result(experiment_id, "ablation")

    def checkpoints(self, experiment_id: str) -> list[CheckpointReply]:
        """Files of an experiment, newest first."""
        return self._get(CheckpointList, f"/api/experiments/{experiment_id}/checkpoints").checkpoints

    def follow_experiment(
        self, experiment_id: str, *, since: str | None = None, log_lines: bool = True
    ) -> Iterator[Event]:
        """Live events of an experiment: snapshot, metrics, rl-metrics, status, job-update, checkpoint, log-lines.

        Without `log_lines`, the `log-lines` events hold no lines, and in `next` the number of the next line.
        """
        if not log_lines:
            try:
                brief = self._follow_topic(f"experiments/{experiment_id}/brief", since=since)
                yield next(brief)
            except NotFoundError:  # no such experiment, or an api that has no brief topics yet
                pass
            else:
                yield from brief
                return
        yield from follow(self._connect(f"/api/experiments/{experiment_id}/stream"), since=since)

    def follow_job(self, job_id: str, *, since: str | None = None) -> Iterator[Event]:
        """Live events of a job: snapshot, job-update, status, log-lines."""
        return follow(self._connect(f"/api/jobs/{job_id}/stream"), since=since)

    def generate(self, checkpoint: str, prompt: str, **fields: Any) -> GenerateReply:
        """Text that goes on from `prompt`; `fields` in snake_case (max_tokens, gating_mode, modulation, …)."""
        body = request_body(checkpoint=checkpoint, prompt=prompt, **fields)
        reply = self._request("POST", "/api/generate", json=body, timeout=GENERATE_SECONDS)
        return GenerateReply.model_validate(reply.json())

    def generate_stream(self, checkpoint: str, prompt: str, **fields: Any) -> Generator[Event]:
        """`token` events, and at the end one `done` with the whole reply; an error of the engine is raised.

        Closing the generator closes the connection, and the server stops generating.
        """
        body = request_body(checkpoint=checkpoint, prompt=prompt, stream=True, **fields)
        yield from self._answer_events("/api/generate", body)

    def _result(self, experiment_id: str, name: str) -> dict[str, Any]:
        return self._get(ResultReply, f"/api/experiments/{experiment_id}/{name}").result
