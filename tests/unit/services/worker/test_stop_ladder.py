"""The stop ladder: each wish with its deadlines, told by a hand-driven clock."""

from __future__ import annotations

from services.worker.stop_ladder import Action, Request, StopLadder


def make() -> StopLadder:
    return StopLadder(stop_grace=60, kill_grace=30, drain_grace=100)


def actions(ladder: StopLadder, until: int, begin: int = 0) -> list[tuple[int, Action]]:
    """Every action with its second; KILL ends the list."""
    found = []
    for now in range(begin, until):
        action = ladder.step(float(now))
        if action is not None:
            found.append((now, action))
        if action is Action.KILL:
            break
    return found


def test_nothing_happens_without_a_wish() -> None:
    assert actions(make(), 500) == []


def test_stop_and_pause_ask_then_terminate_then_kill() -> None:
    requests: tuple[Request, ...] = ("stop", "pause")
    for request in requests:
        ladder = make()
        ladder.want(request, 0)
        assert actions(ladder, 500) == [(0, Action.ASK), (60, Action.TERMINATE), (90, Action.KILL)]


def test_a_pause_has_no_deadline_before_the_first_step() -> None:
    ladder = make()
    found = []
    for now in range(1000):
        ladder.want("pause", float(now), stepping=now >= 500)
        action = ladder.step(float(now))
        if action is not None:
            found.append((now, action))
        if action is Action.KILL:
            break
    assert found == [(0, Action.ASK), (560, Action.TERMINATE), (590, Action.KILL)]


def test_a_stop_during_the_preparation_has_its_deadlines() -> None:
    ladder = make()
    ladder.want("pause", 0, stepping=False)
    ladder.want("stop", 10, stepping=False)
    assert actions(ladder, 500, 10) == [(10, Action.ASK), (70, Action.TERMINATE), (100, Action.KILL)]


def test_cancel_kills_at_the_end_of_the_grace() -> None:
    ladder = make()
    ladder.want("stop", 0, cancel=True)
    assert actions(ladder, 500) == [(0, Action.ASK), (60, Action.KILL)]


def test_a_stop_that_becomes_a_cancel_keeps_its_first_deadline() -> None:
    ladder = make()
    ladder.want("stop", 0)
    assert actions(ladder, 30) == [(0, Action.ASK)]
    ladder.want("stop", 30, cancel=True)
    assert actions(ladder, 500, 30) == [(60, Action.KILL)]


def test_complete_is_asked_once_and_never_killed() -> None:
    ladder = make()
    ladder.want("complete", 0)
    assert actions(ladder, 5000) == [(0, Action.ASK)]


def test_complete_after_pause_takes_the_deadlines_away() -> None:
    ladder = make()
    ladder.want("pause", 0)
    ladder.want("complete", 10)
    assert ladder.request == "complete"
    assert actions(ladder, 5000, 10) == [(10, Action.ASK)]


def test_a_repeated_wish_moves_no_deadline() -> None:
    ladder = make()
    for now in range(0, 50, 2):
        ladder.want("stop", float(now))
        ladder.step(float(now))
    assert actions(ladder, 500, 50) == [(60, Action.TERMINATE), (90, Action.KILL)]


def test_a_milder_wish_is_not_heard_and_a_harder_one_is_asked_anew() -> None:
    ladder = make()
    ladder.want("stop", 0)
    ladder.want("pause", 1)
    assert ladder.request == "stop"
    ladder = make()
    ladder.want("pause", 0)
    ladder.step(0)
    ladder.want("stop", 10)
    assert ladder.step(10) is Action.ASK


def test_drain_kills_at_its_own_deadline_whatever_came_before() -> None:
    ladder = make()
    ladder.want("drain", 0)
    assert actions(ladder, 500) == [(0, Action.ASK), (100, Action.KILL)]
    ladder = StopLadder(stop_grace=60, kill_grace=30, drain_grace=10)
    ladder.want("stop", 0)
    ladder.step(0)
    ladder.want("drain", 5)
    assert ladder.request == "stop"
    assert actions(ladder, 500, 5) == [(15, Action.KILL)]
