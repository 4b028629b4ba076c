"""Checks whether all jobs of a test kept the guarantees of the specification. There is one rule per guarantee.

`check(history)` depends only on its argument: the recorded events, steps, metrics and files of all jobs, which
`tests.faults.history` reads. It returns a sentence for each violation, so an empty list means that there is none. This
module imports nothing from the product, not even the table of transitions, so that it also finds mistakes in the table.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.faults.history import EventRow, History, JobRow, MetricLine, StepRun

TERMINAL = frozenset({"completed", "failed", "cancelled"})
ACTIVE = frozenset({"provisioning", "starting", "running", "completing", "stopping"})
LEASED = ACTIVE | {"stale"}
BEGINNING = "0" * 16
"""The state of the fake trainer (`tests.integration.worker.fake_trainer`) before its first step."""


def _table() -> frozenset[tuple[str | None, str, str]]:
    """Return all transitions of the specification as (old status, new status, actor)."""
    table: set[tuple[str | None, str, str]] = {
        (None, "pending", "api"),
        ("pending", "cancelled", "api"),
        ("pending", "provisioning", "worker"),
        ("provisioning", "starting", "worker"),
        ("starting", "running", "worker"),
        ("running", "completing", "worker"),
        ("completing", "completed", "worker"),
        ("running", "paused", "worker"),
        ("paused", "pending", "api"),
        ("paused", "cancelled", "api"),
        ("stopping", "cancelled", "worker"),
        ("stale", "pending", "reaper"),
        ("stale", "cancelled", "reaper"),
        ("stale", "failed", "reaper"),
    }
    for status in ACTIVE:
        table |= {
            (status, "stopping", "worker"),
            (status, "pending", "worker"),
            (status, "failed", "worker"),
            (status, "stale", "reaper"),
            ("stale", status, "worker"),
        }
    return frozenset(table - {("stopping", "stopping", "worker")})


TABLE = _table()


def check(history: History) -> list[str]:
    """Return the violations in `history`; each is a sentence that contains the id of the job."""
    events: dict[str, list[EventRow]] = defaultdict(list)
    for event in history.events:
        events[event.job].append(event)
    steps: dict[str, list[StepRun]] = defaultdict(list)
    for step in history.steps:
        steps[step.job].append(step)
    found: list[str] = []
    known = {job.id for job in history.jobs}
    found += [f"{job}: lost, it was accepted and has no row" for job in history.accepted if job not in known]
    for job in history.jobs:
        moves = [event for event in events[job.id] if event.target is not None]
        found += [f"{job.id}: {words}" for words in _ends(job, moves)]
        found += [f"{job.id}: {words}" for words in _transitions(job, moves)]
        found += [f"{job.id}: {words}" for words in _attempts(job, moves)]
        found += [f"{job.id}: {words}" for words in _executions(steps[job.id], moves)]
        found += [f"{job.id}: {words}" for words in _resumes(steps[job.id], events[job.id])]
        found += [f"{job.id}: {words}" for words in _metrics(history, job, steps[job.id])]
        found += [f"{job.id}: stream: {words}" for words in _rewinds(history.streams.get(job.id, ()), steps[job.id])]
        found += [f"{job.id}: {words}" for words in _final(job, history)]
        found += [f"{job.id}: {words}" for words in _published(history.published.get(job.id), moves)]
    found += _limits(history)
    return found


def _ends(job: JobRow, moves: list[EventRow]) -> Iterator[str]:
    """Check that only the last event has a terminal status, and that the row of the job has the last event's status."""
    if job.status not in TERMINAL:
        yield f"not terminal, it is {job.status}"
    if job.leased and job.status not in LEASED:
        yield f"a lease is held in status {job.status}"
    terminal = [index for index, move in enumerate(moves) if move.target in TERMINAL]
    if len(terminal) > 1:
        yield f"{len(terminal)} terminal events"
    if terminal and terminal[0] != len(moves) - 1:
        yield f"moved on after the terminal event {moves[terminal[0]].target}"
    if moves and moves[-1].target != job.status:
        yield f"the row has {job.status}, its last event {moves[-1].target}: a status was written without its event"


def _transitions(job: JobRow, moves: list[EventRow]) -> Iterator[str]:
    """Check that each transition is in the table, has an allowed actor, and begins where the previous one ended."""
    if not moves or moves[0].source is not None or moves[0].target != "pending":
        yield "the history does not begin with a submission"
    before_stale: str | None = None
    for index, move in enumerate(moves):
        assert move.target is not None
        if index and move.source != moves[index - 1].target:
            yield f"{move.source} → {move.target} follows {moves[index - 1].target}"
        if (move.source, move.target, move.actor) not in TABLE:
            yield f"{move.source} → {move.target} by the {move.actor} is not in the table"
        if move.target == "stale":
            before_stale = move.source
        elif move.source == "stale" and move.target in LEASED and move.target != before_stale:
            yield f"healed to {move.target}, it was {before_stale}"


def _attempts(job: JobRow, moves: list[EventRow]) -> Iterator[str]:
    """Check that the number of the attempt increases by one at each claim, and only then."""
    attempt = 0
    for move in moves:
        expected = attempt + (move.target == "provisioning" and move.source == "pending")
        if move.attempt != expected:
            yield f"{move.source} → {move.target} has attempt {move.attempt}, expected {expected}"
        attempt = move.attempt
    if moves and job.attempt != attempt:
        yield f"the row has attempt {job.attempt}, its last move {attempt}"


def _executions(steps: list[StepRun], moves: list[EventRow]) -> Iterator[str]:
    """Check that only one attempt at a time executes steps, and only while it has the lease."""
    by_attempt = _by_attempt(steps)
    spans = [(attempt, min(s.began for s in runs), max(s.ended for s in runs)) for attempt, runs in by_attempt.items()]
    for index, (one, began, ended) in enumerate(spans):
        for other, other_began, other_ended in spans[index + 1 :]:
            if began < other_ended and other_began < ended:
                yield f"attempts {one} and {other} executed steps at the same time"
    for attempt, runs in by_attempt.items():
        counts = Counter(run.step for run in runs)
        twice = sorted(step for step, count in counts.items() if count > 1)
        if twice:
            yield f"attempt {attempt} executed step {twice[0]} twice: two executions of one attempt"
        claimed = next((m.at for m in moves if m.attempt == attempt and m.source == "pending"), None)
        if claimed is None and moves:
            yield f"attempt {attempt} executed steps without a claim"
        lease_ends = [m.at for m in moves if m.attempt == attempt and m.source in LEASED and m.target not in LEASED]
        if lease_ends and lease_ends[-1] and (late := [run for run in runs if run.began > lease_ends[-1]]):
            yield f"attempt {attempt} began step {late[0].step} after its lease had ended"


def _resumes(steps: list[StepRun], events: list[EventRow]) -> Iterator[str]:
    """Check that each attempt loads the newest checkpoint and begins with the step after that checkpoint."""
    saved: dict[int, int] = {}
    loaded: dict[int, int] = {}
    skipped: set[int] = set()
    registered = 0
    for event in events:
        if event.event == "claimed":
            saved[event.attempt] = registered
        elif event.event == "checkpoint":
            registered = max(registered, int(event.details["step"]))
        elif event.event == "resumed" and event.actor == "worker":
            loaded[event.attempt] = int(event.details["step"])
        elif event.event == "checkpoint_skipped":
            skipped.add(event.attempt)
    chain: dict[int, str] = {0: BEGINNING}
    reached = 0
    for attempt, runs in sorted(_by_attempt(steps).items()):
        numbers = [run.step for run in runs]
        first = numbers[0]
        if any(after != before + 1 for before, after in pairwise(numbers)):
            yield f"the steps of attempt {attempt} are not consecutive"
        if first != loaded.get(attempt, 0) + 1:
            yield f"attempt {attempt} began with step {first} after loading step {loaded.get(attempt, 0)}"
        if first <= saved.get(attempt, 0) and attempt not in skipped:
            yield f"attempt {attempt} began with step {first}, the checkpoint of step {saved[attempt]} was registered"
        if first > reached + 1:
            yield f"attempt {attempt} began with step {first}, no attempt had passed step {reached}"
        reached = max(reached, *numbers)
        yield from _states(attempt, runs, chain)


def _states(attempt: int, runs: list[StepRun], chain: dict[int, str]) -> Iterator[str]:
    """Check that the state after each step equals the state in a training without faults."""
    for run in runs:
        for step in range(len(chain), run.step + 1):
            chain[step] = hashlib.sha256(f"{chain[step - 1]}:{step}".encode()).hexdigest()[:16]
        if run.state is not None and run.state != chain[run.step]:
            yield f"attempt {attempt} was in a wrong state after step {run.step}: it began from a broken checkpoint"
            return


def _metrics(history: History, job: JobRow, steps: list[StepRun]) -> Iterator[str]:
    """Check that archive and charts have one valid point per step, from the last attempt that executed the step."""
    lines = history.metrics.get(job.id, ())
    if not lines or not steps:
        return
    yield from _rewinds(lines, steps)
    series: dict[int, int] = {}
    for line in lines:
        if line.rewind:
            series = {step: attempt for step, attempt in series.items() if step <= line.step}
        elif series.get(line.step) == line.attempt:
            yield f"step {line.step} of attempt {line.attempt} has two points"
        else:
            series[line.step] = line.attempt
    end = max(series, default=0)
    if missing := sorted(set(range(1, end + 1)) - set(series)):
        yield f"the metric of step {missing[0]} is missing"
    attempts_with_metrics = {line.attempt for line in lines}
    executed: dict[int, int] = {}
    for run in steps:
        if run.attempt in attempts_with_metrics:  # An attempt may be killed before its first line is on the disk.
            executed[run.step] = max(run.attempt, executed.get(run.step, 0))
    for step, attempt in series.items():
        if attempt != executed.get(step):
            yield f"the metric of step {step} is from attempt {attempt}, executed last by {executed.get(step)}"
            break
    last = max(_by_attempt(steps))
    # The last attempt may complete the job without executing a step.
    began = [line.step for line in lines if line.rewind and line.attempt > last]
    trained = began[-1] if began else max(run.step for run in steps if run.attempt == last)
    if job.status == "completed" and end != trained:
        yield f"the metrics end at step {end}, the training at {trained}"
    if job.id in history.series and history.series[job.id] != tuple(sorted(series.items())):
        yield "charts are shown other points than the archive holds"


def _rewinds(lines: Iterable[MetricLine], steps: list[StepRun]) -> Iterator[str]:
    """Check that each attempt after the first one writes a line `rewind` before its first point."""
    first = {attempt: runs[0].step for attempt, runs in _by_attempt(steps).items()}
    rewound: dict[int, int] = {}
    seen: set[int] = set()
    for line in lines:
        if line.rewind:
            rewound[line.attempt] = line.step
            continue
        if line.attempt not in seen and seen and line.attempt not in rewound:
            yield f"points of attempt {line.attempt} come without a rewind"
        if line.attempt in rewound and line.attempt not in seen:
            began = first.get(line.attempt)
            if began is not None and rewound[line.attempt] != began - 1:
                yield f"attempt {line.attempt} rewound to {rewound[line.attempt]} and began with step {began}"
        seen.add(line.attempt)


def _final(job: JobRow, history: History) -> Iterator[str]:
    """Check that the final model of a completed job was written and registered by its last attempt."""
    final = history.finals.get(job.id)
    if final is None or job.status != "completed":
        return
    if final.written_by != job.attempt:
        yield f"the final artifact was written by attempt {final.written_by}, the highest is {job.attempt}"
    if final.registered_by != job.attempt:
        yield f"the final artifact was registered by attempt {final.registered_by}, the highest is {job.attempt}"
    if final.registered_sha256 is not None and final.registered_sha256 != final.sha256:
        yield "the final artifact is not the one that was registered"


def _published(published: tuple[str, ...] | None, moves: list[EventRow]) -> Iterator[str]:
    """Check that the outbox contains the statuses of the events in the same order; repetitions are allowed."""
    if not published:
        return
    if _runs(published) != _runs([move.target for move in moves]):
        yield f"the outbox reports {' → '.join(_runs(published))}, the events differ"


def _limits(history: History) -> Iterator[str]:
    """Check that the number of active and stale jobs of a type never exceeds the limit of that type."""
    types = {job.id: job.type for job in history.jobs}
    holding: dict[str, set[str]] = defaultdict(set)
    for event in history.events:
        kind = types.get(event.job)
        limit = None if kind is None else history.limits.get(kind)
        if event.target is None or kind is None or limit is None:
            continue
        if event.target not in LEASED:
            holding[kind].discard(event.job)
            continue
        holding[kind].add(event.job)
        if len(holding[kind]) > limit:
            yield f"{event.job}: {len(holding[kind])} jobs of {kind} held a slot, the limit is {limit}"


def _by_attempt(steps: Iterable[StepRun]) -> dict[int, list[StepRun]]:
    """Return {attempt: executed steps in the order in which they were written}."""
    found: dict[int, list[StepRun]] = defaultdict(list)
    for step in steps:
        found[step.attempt].append(step)
    return dict(found)


def _runs(values: Iterable[str | None]) -> list[str]:
    """Return the values, without those that equal the value before them."""
    runs: list[str] = []
    for value in values:
        if value is not None and (not runs or runs[-1] != value):
            runs.append(value)
    return runs
