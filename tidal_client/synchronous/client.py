"""`Client`: typed calls of the Tidal API.

    with Client() as client:
        job = client.submit_job("lm-training", config={"data": {"source": "builtin:stories"}})
        for event in client.follow_experiment(job.experiment_id): ...

Every failure raises an exception of `tidal_client.errors`. A client has one connection pool, which threads may share.
"""

# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.
from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing

from ..errors import NotFoundError
from ..problems import error_of_event
from ..requests import segment
from ..sse import StreamEvent
from ..wire.generation_event import EVENT_ERROR
from .access_tokens import AccessTokenCalls
from .analyses import AnalysisCalls
from .datasets import DatasetCalls
from .experiments import ExperimentCalls
from .generation import GenerationCalls
from .jobs import JobCalls
from .reports import ReportCalls
from .service import ServiceCalls
from .streams import follow


class Client(
    JobCalls,
    ExperimentCalls,
    DatasetCalls,
    GenerationCalls,
    AnalysisCalls,
    ReportCalls,
    AccessTokenCalls,
    ServiceCalls,
):
    """A client of one api server. A token is required for every call that changes something.

    The methods `follow_…` yield live events until the caller stops. They connect again after a broken connection and
    continue after the last event, so no event is missing and none comes twice. They begin after the event id `since`,
    or with a `snapshot`.
    """

    def follow_jobs(self, *, since: str | None = None) -> Generator[StreamEvent]:
        """Yield the changes of all jobs: snapshot, then job-update."""
        with closing(follow(self._connect("/api/jobs/stream"), since=since)) as events:
            yield from events

    def follow_job(self, job_id: str, *, since: str | None = None) -> Generator[StreamEvent]:
        """Yield the live events of a job: snapshot, job-update, status, log-lines."""
        with closing(follow(self._connect(f"/api/jobs/{segment(job_id)}/stream"), since=since)) as events:
            yield from events

    def follow_experiment(
        self, experiment_id: str, *, since: str | None = None, log_lines: bool = True
    ) -> Generator[StreamEvent]:
        """Yield the live events of an experiment.

        The events are snapshot, metrics, rl-metrics, rewind, status, job-update, checkpoint and log-lines. If
        `log_lines` is False, `log-lines` events omit the lines; their field `next` is the number of the next line.
        """
        if not log_lines:
            topic, begun = f"experiments/{experiment_id}/brief", False
            try:
                with closing(self._follow_topics([topic], {topic: since})) as events:
                    for event in events:
                        if event.name == EVENT_ERROR:
                            raise error_of_event(event)
                        begun = True
                        yield event
            except NotFoundError:
                if begun:
                    raise
                # The experiment is unknown, or the api is older and has no topic `…/brief`.
            else:
                return
        path = f"/api/experiments/{segment(experiment_id)}/stream"
        with closing(follow(self._connect(path), since=since)) as events:
            for event in events:
                yield event

    def follow_topics(
        self, topics: Sequence[str], *, since: Mapping[str, str | None] | None = None
    ) -> Generator[StreamEvent]:
        """Yield the live events of several streams over one connection, each with its `topic`.

        A topic is `jobs`, `jobs/<id>` or `experiments/<id>`; with `/brief` after the id, `log-lines` events contain no
        lines. `since` maps topics to the event ids after which they begin. A topic that does not exist yields an
        `error` event, and the other topics continue. Ends if no topic is left.
        """
        with closing(self._follow_topics(topics, since)) as events:
            yield from events
