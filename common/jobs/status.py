"""The state machine of a job: the table of allowed transitions, and how signals change the desired state.

Uses neither the database nor a clock. `common.jobs.queue`, `signals` and `reaper` write only the transitions in
`TRANSITIONS`; a trigger in the database has the same table and refuses all other transitions (docs/decisions/0034).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tidal_client.vocabulary import ACTIVE, DesiredState, JobStatus, Signal


class StatusWriter(StrEnum):
    """The components that may change the status of a job."""

    API = "api"
    """The HTTP API, only while the job has no lease."""
    CLAIMER = "claimer"
    """The worker that claims a pending job."""
    OWNER = "owner"
    """The worker that holds the lease. A write with an outdated `attempt` is refused."""
    REAPER = "reaper"
    """The reaper, only after the lease has expired."""


S = JobStatus


def _table() -> dict[tuple[JobStatus, JobStatus], frozenset[StatusWriter]]:
    rows: list[tuple[JobStatus, JobStatus, StatusWriter]] = [
        (S.PENDING, S.CANCELLED, StatusWriter.API),
        (S.PENDING, S.PROVISIONING, StatusWriter.CLAIMER),
        (S.PROVISIONING, S.STARTING, StatusWriter.OWNER),
        (S.STARTING, S.RUNNING, StatusWriter.OWNER),
        (S.RUNNING, S.COMPLETING, StatusWriter.OWNER),
        (S.COMPLETING, S.COMPLETED, StatusWriter.OWNER),
        (S.RUNNING, S.PAUSED, StatusWriter.OWNER),
        (S.PAUSED, S.PENDING, StatusWriter.API),
        (S.PAUSED, S.CANCELLED, StatusWriter.API),
        (S.STOPPING, S.CANCELLED, StatusWriter.OWNER),
        (S.STALE, S.PENDING, StatusWriter.REAPER),
        (S.STALE, S.CANCELLED, StatusWriter.REAPER),
        (S.STALE, S.FAILED, StatusWriter.REAPER),
    ]
    for status in ACTIVE:
        rows.append((status, S.PENDING, StatusWriter.OWNER))
        rows.append((status, S.FAILED, StatusWriter.OWNER))
        rows.append((status, S.STALE, StatusWriter.REAPER))
        # An owner that renews the lease of a stale job can restore only the status in `status_before_stale`.
        rows.append((S.STALE, status, StatusWriter.OWNER))
        if status is not S.STOPPING:
            rows.append((status, S.STOPPING, StatusWriter.OWNER))
    table: dict[tuple[JobStatus, JobStatus], frozenset[StatusWriter]] = {}
    for source, target, writer in rows:
        table[source, target] = table.get((source, target), frozenset()) | {writer}
    return table


TRANSITIONS: Final = _table()
"""{(old status, new status): the components that may make this transition}; all other transitions are forbidden."""

_SIGNALS: Final[dict[JobStatus, frozenset[Signal]]] = {
    S.PENDING: frozenset({Signal.STOP}),
    S.PROVISIONING: frozenset({Signal.STOP, Signal.PAUSE}),
    S.STARTING: frozenset({Signal.STOP, Signal.PAUSE}),
    S.RUNNING: frozenset(Signal),
    S.COMPLETING: frozenset({Signal.STOP}),
    S.PAUSED: frozenset({Signal.RESUME, Signal.STOP}),
    S.STALE: frozenset(Signal),
}

_SEVERITY: Final = {state: rank for rank, state in enumerate(DesiredState)}

_DESIRED_BY_SIGNAL: Final = {
    Signal.PAUSE: DesiredState.PAUSE,
    Signal.RESUME: DesiredState.RUN,
    Signal.COMPLETE: DesiredState.COMPLETE,
    Signal.STOP: DesiredState.STOP,
}


def may_move(source: JobStatus, target: JobStatus, writer: StatusWriter) -> bool:
    """Return whether `writer` may move a job from `source` to `target`."""
    return writer in TRANSITIONS.get((source, target), frozenset())


def allowed_signals(status: JobStatus, desired: DesiredState, *, resumable: bool) -> frozenset[Signal]:
    """Return the signals that a job in `status` with the desired state `desired` accepts; others are refused with 409.

    A job without checkpoints (not `resumable`) accepts only stop. A pending job accepts resume if its desired state is
    pause. Such a job returned to the queue before its first checkpoint; without resume, it pauses once it has a
    checkpoint.
    """
    signals = _SIGNALS.get(status, frozenset())
    if status is S.PENDING and desired is DesiredState.PAUSE:
        signals |= {Signal.RESUME}
    return signals if resumable else signals & {Signal.STOP}


def useful_signals(status: JobStatus, desired: DesiredState, *, resumable: bool) -> frozenset[Signal]:
    """Return the signals of `allowed_signals` that would change the desired state. User interfaces offer only these.

    Repetitions (such as a second stop) and signals that are milder than the desired state are not returned.
    """
    allowed = allowed_signals(status, desired, resumable=resumable)
    return frozenset(signal for signal in allowed if desired_state_after(desired, signal) not in (None, desired))


def desired_state_after(present: DesiredState, signal: Signal) -> DesiredState | None:
    """Return the desired state after `signal`, or None if it would be milder than `present`.

    A desired state only becomes more severe (run < pause < complete < stop); only pause may return to run.
    """
    wanted = _DESIRED_BY_SIGNAL[signal]
    if _SEVERITY[wanted] >= _SEVERITY[present]:
        return wanted
    if present is DesiredState.PAUSE and wanted is DesiredState.RUN:
        return wanted
    return None


def forbidden_reason(target: JobStatus, desired: DesiredState, *, has_checkpoint: bool) -> str | None:
    """Return why the owner of a job may not write the status `target`, or None if this is allowed.

    The caller holds the row lock.

    Completed is forbidden if the desired state is stop; paused needs the desired state pause and a registered
    checkpoint; stopping and cancelled need the desired state stop.
    """
    if target is S.COMPLETED and desired is DesiredState.STOP:
        return "a stop was requested"
    if target is S.PAUSED and desired is not DesiredState.PAUSE:
        return f"its desired state is {desired}, not pause"
    if target is S.PAUSED and not has_checkpoint:
        return "no checkpoint is registered"
    if target in (S.STOPPING, S.CANCELLED) and desired is not DesiredState.STOP:
        return f"its desired state is {desired}, not stop"
    return None
