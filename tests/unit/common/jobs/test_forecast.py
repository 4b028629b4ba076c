"""Predicted starts equal those of a simulation in steps of one second, and those of examples computed by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.jobs.forecast import LeasedJob, WaitingJob, predict_starts

TYPES = ["lm", "rl", "ev"]


def by_seconds(
    waiting: list[WaitingJob],
    busy: list[LeasedJob],
    limits: dict[str, int | None],
    workers: int,
    usual: dict[str, float],
) -> dict[str, float]:
    """Compute the prediction by a simulation in steps of one second."""
    running = [(job.type, job.seconds_left, job.on_worker) for job in busy]
    left = list(waiting)
    starts: dict[str, float] = {}
    for now in range(400):
        running = [job for job in running if job[1] is None or job[1] > now]
        for job in list(left):
            same = sum(kind == job.type for kind, _, _ in running)
            limit = limits.get(job.type)
            free = sum(on_worker for _, _, on_worker in running) < workers and (limit is None or same < limit)
            if free and job.due_in <= now:
                starts[job.job_id] = float(now)
                left.remove(job)
                usually = usual.get(job.type)
                running.append((job.type, None if usually is None else now + usually, True))
    return starts


def whole(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


@given(
    waiting=st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from([0.0, 0.0, 3.0, 11.0])), max_size=9),
    busy=st.lists(st.builds(LeasedJob, st.sampled_from(TYPES), st.none() | whole(0, 20), st.booleans()), max_size=4),
    limits=st.dictionaries(st.sampled_from(TYPES), st.none() | st.integers(1, 3)),
    workers=st.integers(0, 4),
    usual=st.dictionaries(st.sampled_from(TYPES), whole(1, 30)),
)
def test_it_agrees_with_a_simulation_second_by_second(
    waiting: list[tuple[str, float]],
    busy: list[LeasedJob],
    limits: dict[str, int | None],
    workers: int,
    usual: dict[str, float],
) -> None:
    jobs = [WaitingJob(f"job_{n}", kind, due) for n, (kind, due) in enumerate(waiting)]
    found = predict_starts(jobs, busy, limits=limits, workers=workers, usual_seconds=usual)
    assert found == by_seconds(jobs, busy, limits, workers, usual)


def test_the_next_of_a_limited_type_starts_when_the_running_one_ends() -> None:
    line = [WaitingJob("a", "lm"), WaitingJob("b", "lm"), WaitingJob("c", "rl")]
    usual = {"lm": 100.0, "rl": 5.0}
    found = predict_starts(line, [LeasedJob("lm", 90.0)], limits={"lm": 1, "rl": 1}, workers=2, usual_seconds=usual)
    assert found == {"a": 90.0, "b": 190.0, "c": 0.0}


def test_one_worker_serves_all_types_in_turn() -> None:
    line = [WaitingJob("a", "rl"), WaitingJob("b", "lm")]
    found = predict_starts(line, [LeasedJob("lm", 60.0)], limits={}, workers=1, usual_seconds={"rl": 40.0})
    assert found == {"a": 60.0, "b": 100.0}


def test_behind_a_job_of_unknown_duration_there_is_no_prediction() -> None:
    line = [WaitingJob("a", "lm"), WaitingJob("b", "ev")]
    assert predict_starts(line, [LeasedJob("lm", None)], limits={"lm": 1}, workers=2, usual_seconds={}) == {"b": 0.0}
    assert predict_starts(line, [LeasedJob("lm", None)], limits={"lm": 1}, workers=1, usual_seconds={}) == {}


def test_without_workers_nothing_starts() -> None:
    assert predict_starts([WaitingJob("a", "lm")], [], limits={}, workers=0, usual_seconds={"lm": 1.0}) == {}


def test_a_stale_job_counts_against_the_limit_but_occupies_no_worker() -> None:
    line = [WaitingJob("a", "lm"), WaitingJob("b", "ev")]
    found = predict_starts(
        line, [LeasedJob("lm", None, on_worker=False)], limits={"lm": 1}, workers=1, usual_seconds={}
    )
    assert found == {"b": 0.0}
