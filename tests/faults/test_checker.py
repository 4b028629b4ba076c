"""The checker accepts a valid `History` of jobs, and for each rule finds the violation in an invalid one.

Real processes with bugs are tested in `test_seeded_bugs.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.faults.checker import BEGINNING, check
from tests.faults.history import EventRow, Final, History, JobRow, MetricLine, StepRun

pytestmark = pytest.mark.core_fault

JOB = "job_1"


def state(step: int) -> str:
    """Return the state of the fake trainer after a step.

    This function implements the trainer's chain of hashes a second time.
    """
    value = BEGINNING
    for number in range(1, step + 1):
        value = hashlib.sha256(f"{value}:{number}".encode()).hexdigest()[:16]
    return value


def move(source: str | None, target: str, actor: str, attempt: int, at: float, event: str = "") -> EventRow:
    return EventRow(JOB, attempt, event or target, actor, source, target, at=at)


def note(event: str, attempt: int, at: float, actor: str = "worker", **details: object) -> EventRow:
    return EventRow(JOB, attempt, event, actor, details=details, at=at)


def step(attempt: int, number: int, began: float) -> StepRun:
    return StepRun(JOB, attempt, number, began, began + 0.5, state(number))


EVENTS = (
    move(None, "pending", "api", 0, 1.0, "submitted"),
    move("pending", "provisioning", "worker", 1, 2.0, "claimed"),
    move("provisioning", "starting", "worker", 1, 3.0),
    move("starting", "running", "worker", 1, 4.0),
    note("checkpoint", 1, 7.0, step=2),
    move("running", "stale", "reaper", 1, 12.0),
    move("stale", "pending", "reaper", 1, 14.0, "restarted"),
    move("pending", "provisioning", "worker", 2, 15.0, "claimed"),
    move("provisioning", "starting", "worker", 2, 16.0),
    note("resumed", 2, 17.0, step=2),
    move("starting", "running", "worker", 2, 17.5),
    move("running", "completing", "worker", 2, 22.0),
    move("completing", "completed", "worker", 2, 23.0),
)
STEPS = (step(1, 1, 5.0), step(1, 2, 6.0), step(1, 3, 8.0), step(2, 3, 18.0), step(2, 4, 19.0))
METRICS = (
    MetricLine(1, 1),
    MetricLine(1, 2),
    MetricLine(1, 3),
    MetricLine(2, 2, rewind=True),
    MetricLine(2, 3),
    MetricLine(2, 4),
)
SERIES = ((1, 1), (2, 1), (3, 2), (4, 2))
PUBLISHED = (
    *("pending", "provisioning", "starting", "running", "running", "stale"),
    *("pending", "provisioning", "starting", "running", "completing", "completed"),
)
VALID = History(
    jobs=(JobRow(JOB, "lm-training", "completed", 2),),
    events=EVENTS,
    steps=STEPS,
    metrics={JOB: METRICS},
    series={JOB: SERIES},
    streams={JOB: METRICS},
    finals={JOB: Final(2, "aa", 2, "aa")},
    published={JOB: PUBLISHED},
    accepted=(JOB,),
    limits={"lm-training": 1},
)


def test_a_valid_history_passes() -> None:
    assert check(VALID) == []


def events_with(index: int, *replacement: EventRow) -> History:
    """Return VALID with `replacement` in place of the event at `index`, and without published statuses."""
    return replace(VALID, events=(*EVENTS[:index], *replacement, *EVENTS[index + 1 :]), published={})


def steps_with(*steps: StepRun) -> History:
    """Return VALID with `steps` as the executed steps, and without metrics."""
    return replace(VALID, steps=steps, metrics={}, series={}, streams={})


def metrics_with(*lines: MetricLine) -> History:
    return replace(VALID, metrics={JOB: lines}, series={}, streams={})


OTHER = "job_2"
TWO_AT_ONCE = (
    EventRow(OTHER, 0, "submitted", "api", None, "pending"),
    *EVENTS[:4],
    EventRow(OTHER, 1, "claimed", "worker", "pending", "provisioning"),
    EventRow(OTHER, 1, "released", "worker", "provisioning", "pending"),
    EventRow(OTHER, 1, "cancelled", "api", "pending", "cancelled"),
    *EVENTS[4:],
)
BROKEN: dict[str, tuple[History, str]] = {
    "a job vanished": (replace(VALID, accepted=(JOB, OTHER)), "job_2: lost"),
    "a job never ended": (
        replace(
            VALID, jobs=(JobRow(JOB, "lm-training", "running", 2, True),), events=EVENTS[:-2], published={}, finals={}
        ),
        "not terminal, it is running",
    ),
    "a lease outlived the job": (
        replace(VALID, jobs=(JobRow(JOB, "lm-training", "completed", 2, True),)),
        "a lease is held in status completed",
    ),
    "it ended twice": (
        replace(VALID, events=(*EVENTS, move("completed", "completed", "worker", 2, 24.0))),
        "2 terminal events",
    ),
    "it went on after its end": (
        replace(VALID, events=(*EVENTS, move("completed", "pending", "api", 2, 24.0))),
        "moved on after the terminal event",
    ),
    "a status without its event": (replace(VALID, events=EVENTS[:-1]), "written without its event"),
    "no submission": (replace(VALID, events=EVENTS[1:], published={}), "does not begin with a submission"),
    "an event is missing": (events_with(2), "starting → running follows provisioning"),
    "the api wrote while leased": (
        replace(
            VALID,
            jobs=(JobRow(JOB, "lm-training", "cancelled", 1),),
            events=(*EVENTS[:4], move("running", "cancelled", "api", 1, 9.0)),
            steps=STEPS[:3],
        ),
        "running → cancelled by the api is not in the table",
    ),
    "the reaper requeued without quarantine": (
        events_with(5, move("running", "pending", "reaper", 1, 12.0)),
        "running → pending by the reaper is not in the table",
    ),
    "healed to another status": (
        events_with(6, move("stale", "starting", "worker", 1, 13.0), move("starting", "pending", "worker", 1, 14.0)),
        "healed to starting, it was running",
    ),
    "an attempt without a claim": (
        events_with(8, move("provisioning", "starting", "worker", 3, 16.0)),
        "has attempt 3, expected 2",
    ),
    "a claim without an attempt": (
        events_with(7, move("pending", "provisioning", "worker", 1, 15.0)),
        "pending → provisioning has attempt 1, expected 2",
    ),
    "the row's attempt fell": (
        replace(VALID, jobs=(JobRow(JOB, "lm-training", "completed", 1),)),
        "row has attempt 1",
    ),
    "two attempts at once": (
        steps_with(*STEPS[:2], step(1, 3, 18.2), *STEPS[3:]),
        "attempts 1 and 2 executed steps at the same time",
    ),
    "one attempt twice": (steps_with(*STEPS, step(2, 4, 20.0)), "attempt 2 executed step 4 twice"),
    "steps without a claim": (steps_with(*STEPS, step(3, 5, 30.0)), "attempt 3 executed steps without a claim"),
    "a step after the lease": (
        steps_with(*STEPS[:2], step(1, 3, 14.5), *STEPS[3:]),
        "attempt 1 began step 3 after its lease had ended",
    ),
    "a step left out": (steps_with(*STEPS[:4], step(2, 5, 19.0)), "the steps of attempt 2 are not consecutive"),
    "resumed at the wrong step": (
        steps_with(*STEPS[:3], step(2, 4, 18.0), step(2, 5, 19.0)),
        "attempt 2 began with step 4 after loading step 2",
    ),
    "an older checkpoint": (
        replace(events_with(9, note("resumed", 2, 17.0, step=1)), steps=(*STEPS[:3], step(2, 2, 18.0)), metrics={}),
        "attempt 2 began with step 2, the checkpoint of step 2 was registered",
    ),
    "a checkpoint from nowhere": (
        replace(events_with(9, note("resumed", 2, 17.0, step=8)), steps=(*STEPS[:3], step(2, 9, 18.0)), metrics={}),
        "no attempt had passed step 3",
    ),
    "a torn checkpoint": (
        steps_with(*STEPS[:3], replace(STEPS[3], state="e3b0c44298fc1c14")),
        "attempt 2 was in a wrong state after step 3",
    ),
    "no rewind": (metrics_with(*METRICS[:3], *METRICS[4:]), "points of attempt 2 come without a rewind"),
    "a rewind to the wrong step": (
        metrics_with(*METRICS[:3], MetricLine(2, 1, rewind=True), *METRICS[4:]),
        "attempt 2 rewound to 1 and began with step 3",
    ),
    "no rewind in the stream": (
        replace(VALID, streams={JOB: (*METRICS[:3], *METRICS[4:])}),
        "stream: points of attempt 2 come without a rewind",
    ),
    "a point twice": (metrics_with(*METRICS, MetricLine(2, 4)), "step 4 of attempt 2 has two points"),
    "a gap": (metrics_with(METRICS[0], *METRICS[2:]), "the metric of step 2 is missing"),
    "the older attempt counts": (
        metrics_with(*METRICS[:5], METRICS[5], MetricLine(1, 3)),
        "the metric of step 3 is from attempt 1, executed last by 2",
    ),
    "the end is missing": (metrics_with(*METRICS[:5]), "the metrics end at step 3, the training at 4"),
    "charts differ": (
        replace(VALID, series={JOB: ((1, 1), (2, 1), (3, 1), (4, 2))}),
        "charts are shown other points than the archive holds",
    ),
    "an older attempt's artifact": (
        replace(VALID, finals={JOB: Final(2, "aa", 1, "aa")}),
        "the final artifact was written by attempt 1",
    ),
    "registered by an older attempt": (
        replace(VALID, finals={JOB: Final(1, "aa", 2, "aa")}),
        "the final artifact was registered by attempt 1",
    ),
    "another artifact than registered": (
        replace(VALID, finals={JOB: Final(2, "bb", 2, "aa")}),
        "the final artifact is not the one that was registered",
    ),
    "the outbox differs": (replace(VALID, published={JOB: PUBLISHED[:-1]}), "the events differ"),
    "the limit is passed": (
        replace(VALID, jobs=(*VALID.jobs, JobRow(OTHER, "lm-training", "cancelled", 1)), events=TWO_AT_ONCE),
        "2 jobs of lm-training held a slot, the limit is 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name: str) -> None:
    history, words = BROKEN[name]
    assert any(words in violation for violation in check(history)), check(history)
