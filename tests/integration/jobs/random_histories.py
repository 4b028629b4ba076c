"""A Hypothesis state machine that performs random actions on jobs and checks their events after every action."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from common.errors import ConflictError, LeaseLostError
from common.jobs.lease import renew
from common.jobs.queue import complete_job, fail_job, pause_job, register_checkpoint, release_job, transition
from common.jobs.reaper import reap
from common.jobs.retry import Fault
from common.jobs.signals import request_cancel, request_signal
from common.jobs.status import TRANSITIONS
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import LEASED, TERMINAL, JobStatus, Signal

S = JobStatus
TYPES = ("lm-training", "evaluation")

HISTORY = "SELECT job_id, attempt, event, from_status, to_status FROM job_events ORDER BY job_id, id"
PUBLISHED = "SELECT job_id, payload->>'status' FROM outbox WHERE kind = 'job-update' ORDER BY job_id, id"
ROWS = "SELECT id, status, attempt, desired_state, type FROM jobs"


class Histories(RuleBasedStateMachine):
    """Random actions on the jobs of one database. A subclass in the test sets `job_queue`, `limit` and `most`."""

    job_queue: JobQueue
    """Submits and claims jobs, and reads the database."""
    limit: int
    """Maximum number of leased jobs of one type."""
    most: dict[str, int]
    """{job type: largest number of leased jobs that was seen}, over all runs."""
    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.job_queue.sql("TRUNCATE experiments, outbox CASCADE")
        self.ended: dict[str, str] = {}

    def owner(self, function: Any, owned: tuple[str, int], *arguments: Any, **named: Any) -> None:
        """Call `function` as the owner of an attempt; if the attempt is outdated, assert that the call is rejected."""
        job_id, attempt = owned
        if self.job_queue.job(job_id).attempt == attempt:
            self.attempt(function, job_id, attempt, *arguments, **named)
            return
        try:
            self.job_queue.do(function, job_id, attempt, *arguments, **named)
        except LeaseLostError:
            return
        raise AssertionError(f"outdated attempt {attempt} of {job_id} wrote {function.__name__}")

    def attempt(self, function: Any, *arguments: Any, **named: Any) -> None:
        """Call `function`. The call may be rejected, but every other error fails the test."""
        try:
            self.job_queue.do(function, *arguments, **named)
        except (ConflictError, LeaseLostError):
            pass
        except ValueError as error:
            assert "may not move" in str(error)

    @initialize(target=jobs)
    def begin(self) -> Any:
        """For each type, submit twice as many jobs as may be leased at the same time."""
        return multiple(*[self.job_queue.submit(job_type) for job_type in TYPES for _ in range(2 * self.limit)])

    @rule(target=jobs, job_type=st.sampled_from(TYPES), priority=st.integers(-2, 2))
    def submit(self, job_type: str, priority: int) -> str:
        return self.job_queue.submit(job_type, priority=priority)

    @rule(target=attempts, count=st.integers(1, 4))
    def claim(self, count: int) -> Any:
        """Let `count` workers claim one after the other.

        A claim may find no job only if every type with waiting jobs is at its limit.
        """
        claimed = [self.job_queue.claim(f"worker-{number}") for number in range(count)]
        if claimed[-1] is None:
            rows = self.job_queue.rows(ROWS + " WHERE not_before IS NULL OR not_before <= now()")
            waiting = {row[4] for row in rows if row[1] == S.PENDING}
            assert all(self.leased(job_type) == self.limit for job_type in waiting), (
                "a job waits although its type is below the limit"
            )
        return multiple(*[(job.id, job.attempt) for job in claimed if job is not None])

    def leased(self, job_type: str) -> int:
        """Return the number of leased jobs of the type."""
        return sum(row[4] == job_type and row[1] in LEASED for row in self.job_queue.rows(ROWS))

    @rule(owned=attempts, to=st.sampled_from(list(S)))
    def move(self, owned: tuple[str, int], to: JobStatus) -> None:
        fields = {"error_code": "user_error"} if to is S.FAILED else {}
        if to is not S.STALE:
            self.owner(transition, owned, to, **fields)

    @rule(owned=attempts)
    def progress(self, owned: tuple[str, int]) -> None:
        for to in (S.STARTING, S.RUNNING):
            self.owner(transition, owned, to)

    @rule(owned=attempts, ending=st.sampled_from([complete_job, pause_job, release_job]))
    def end(self, owned: tuple[str, int], ending: Any) -> None:
        self.owner(ending, owned)

    @rule(owned=attempts, fault=st.sampled_from(list(Fault)))
    def fault(self, owned: tuple[str, int], fault: Fault) -> None:
        self.owner(fail_job, owned, fault, "it broke", settings=self.job_queue.settings)

    @rule(owned=attempts, step=st.integers(0, 5))
    def checkpoint(self, owned: tuple[str, int], step: int) -> None:
        self.owner(register_checkpoint, owned, name=f"step-{step}", step=step, sha256="00")

    @rule(owned=attempts)
    def renew(self, owned: tuple[str, int]) -> None:
        self.owner(renew, owned, self.job_queue.settings)

    @rule(job_id=jobs, signal=st.sampled_from(list(Signal)))
    def signal(self, job_id: str, signal: Signal) -> None:
        self.attempt(request_signal, job_id, signal)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        self.attempt(request_cancel, job_id)

    @rule(job_id=jobs, age=st.sampled_from([1, 3600]))
    def lose_worker(self, job_id: str, age: int) -> None:
        self.job_queue.sql(
            "UPDATE jobs SET lease_expires_at = now() - make_interval(secs => :age)"
            " WHERE id = :id AND lease_owner IS NOT NULL",
            age=age,
            id=job_id,
        )
        self.job_queue.do(reap, self.job_queue.settings)

    @rule(job_id=jobs)
    def partition(self, job_id: str) -> None:
        self.lose_worker(job_id, 1)

    @rule()
    def time_passes(self) -> None:
        self.job_queue.sql("UPDATE jobs SET not_before = NULL WHERE status = 'pending'")
        self.job_queue.do(reap, self.job_queue.settings)

    @invariant()
    def histories_are_lawful(self) -> None:
        rows = {row[0]: row for row in self.job_queue.rows(ROWS)}
        events: dict[str, list[Any]] = {job_id: [] for job_id in rows}
        for row in self.job_queue.rows(HISTORY):
            events[row[0]].append(row)
        published: dict[str, list[str]] = {job_id: [] for job_id in rows}
        for job_id, status in self.job_queue.rows(PUBLISHED):
            published[job_id].append(status)
        for job_id, (_, status, attempt, _, _) in rows.items():
            moves = [row for row in events[job_id] if row[4] is not None]
            assert (moves[0][3], moves[0][4]) == (None, "pending")
            for before, after in pairwise(moves):
                assert after[3] == before[4], "an event does not continue where the last one ended"
                assert (S(after[3]), S(after[4])) in TRANSITIONS
                assert after[1] - before[1] == (after[2] == "claimed"), "an attempt is exactly one claim"
            assert (moves[-1][4], moves[-1][1]) == (status, attempt)
            assert sum(row[4] in TERMINAL for row in moves) == (status in TERMINAL)
            assert [after for after, _ in _runs(published[job_id])] == [
                after for after, _ in _runs([m[4] for m in moves])
            ]
            if job_id in self.ended:
                assert status == self.ended[job_id], "a terminal row moved"
            if status in TERMINAL:
                self.ended[job_id] = status
        for job_type in TYPES:
            held = sum(row[4] == job_type and row[1] in LEASED for row in rows.values())
            assert held <= self.limit, f"{held} {job_type} jobs are leased"
            self.most[job_type] = max(self.most.get(job_type, 0), held)

    def teardown(self) -> None:
        """Cancel every job, let its lease expire, and assert that each job ends exactly once."""
        for (job_id,) in self.job_queue.rows("SELECT id FROM jobs"):
            self.attempt(request_cancel, job_id)
            self.lose_worker(job_id, 3600)
        assert self.job_queue.rows("SELECT status FROM jobs WHERE finished_at IS NULL") == []
        self.histories_are_lawful()


def _runs(values: list[str]) -> list[tuple[str, int]]:
    """Return (value, length) for each run of equal values.

    A status occurs several times in a row if a job was updated without a change of its status.
    """
    runs: list[tuple[str, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return runs
