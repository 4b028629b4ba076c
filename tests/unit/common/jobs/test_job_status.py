"""The table of transitions equals the specification, and its invariants hold for all pairs of statuses."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from common.jobs.status import (
    TRANSITIONS,
    StatusWriter,
    desired_state_after,
    forbidden_reason,
    may_move,
    useful_signals,
)
from tidal_client.vocabulary import LEASED, LIVE, TERMINAL, DesiredState, JobStatus, Signal

S = JobStatus
D = DesiredState

# The specification's transitions, copied line by line.
SPECIFICATION = """
pending → cancelled: api
pending → provisioning: claimer
provisioning → starting → running: owner
running → completing → completed: owner
running → paused: owner
paused → pending: api
paused → cancelled: api
active → stopping → cancelled: owner
active → pending: owner
active → failed: owner
active → stale: reaper
stale → active: owner
stale → pending: reaper
stale → cancelled: reaper
stale → failed: reaper
"""
ACTIVE_WORDS = ["provisioning", "starting", "running", "completing", "stopping"]


def specified() -> set[tuple[str, str, str]]:
    triples: set[tuple[str, str, str]] = set()
    for line in SPECIFICATION.strip().splitlines():
        way, writer = line.split(": ")
        stations = [ACTIVE_WORDS if word == "active" else [word] for word in way.split(" → ")]
        for sources, targets in pairwise(stations):
            triples |= {(a, b, writer) for a, b in product(sources, targets) if a != b}
    return triples


def test_the_table_is_the_specification() -> None:
    assert {(a, b, writer) for (a, b), writers in TRANSITIONS.items() for writer in writers} == specified()


def test_nothing_leaves_a_terminal_status() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in TERMINAL]


def test_the_api_writes_only_where_no_lease_exists_and_the_reaper_only_where_one_was() -> None:
    for (source, _), writers in TRANSITIONS.items():
        if StatusWriter.API in writers or StatusWriter.CLAIMER in writers:
            assert source not in LEASED
        if StatusWriter.REAPER in writers:
            assert source in LEASED


def test_every_live_status_can_reach_every_terminal_one() -> None:
    for start in LIVE:
        reached, edge = {start}, {start}
        while edge:
            edge = {target for source, target in TRANSITIONS if source in edge} - reached
            reached |= edge
        assert reached >= TERMINAL, start


def test_may_move_asks_for_the_writer() -> None:
    assert may_move(S.PENDING, S.PROVISIONING, StatusWriter.CLAIMER)
    assert not may_move(S.PENDING, S.PROVISIONING, StatusWriter.OWNER)


WORTH = {D.RUN: 0, D.PAUSE: 1, D.COMPLETE: 2, D.STOP: 3}
MEANS = {Signal.RESUME: D.RUN, Signal.PAUSE: D.PAUSE, Signal.COMPLETE: D.COMPLETE, Signal.STOP: D.STOP}


@pytest.mark.parametrize(("present", "signal"), list(product(D, Signal)))
def test_a_desired_state_only_becomes_more_severe(present: DesiredState, signal: Signal) -> None:
    wanted = MEANS[signal]
    allowed = WORTH[wanted] >= WORTH[present] or (present, wanted) == (D.PAUSE, D.RUN)
    assert desired_state_after(present, signal) == (wanted if allowed else None)


# The signals that the specification allows in a status, except signals with no effect on the desired state.
OFFERED = """
pending run: stop
pending pause: resume stop
provisioning run: pause stop
provisioning pause: stop
starting run: pause stop
starting pause: stop
starting stop:
running run: pause complete stop
running pause: resume complete stop
running complete: stop
running stop:
completing run: stop
completing stop:
stopping stop:
paused pause: resume stop
stale run: pause complete stop
stale pause: resume complete stop
completed run:
failed run:
cancelled stop:
"""


def test_only_signals_that_change_something_are_offered() -> None:
    for line in OFFERED.strip().splitlines():
        situation, signals = line.split(":")
        status, desired = situation.split()
        found = useful_signals(JobStatus(status), DesiredState(desired), resumable=True)
        assert found == {Signal(name) for name in signals.split()}, situation
        without = useful_signals(JobStatus(status), DesiredState(desired), resumable=False)
        assert without == found & {Signal.STOP}, situation


@pytest.mark.parametrize(
    ("target", "desired", "has_checkpoint", "allowed"),
    [
        (S.COMPLETED, D.RUN, False, True),
        (S.COMPLETED, D.COMPLETE, False, True),
        (S.COMPLETED, D.STOP, True, False),
        (S.PAUSED, D.PAUSE, True, True),
        (S.PAUSED, D.PAUSE, False, False),
        (S.PAUSED, D.RUN, True, False),
        (S.STOPPING, D.STOP, False, True),
        (S.STOPPING, D.PAUSE, False, False),
        (S.CANCELLED, D.RUN, False, False),
        (S.RUNNING, D.STOP, False, True),
        (S.PENDING, D.RUN, False, True),
    ],
)
def test_guards_of_the_owner(target: JobStatus, desired: DesiredState, has_checkpoint: bool, allowed: bool) -> None:
    assert (forbidden_reason(target, desired, has_checkpoint=has_checkpoint) is None) is allowed
