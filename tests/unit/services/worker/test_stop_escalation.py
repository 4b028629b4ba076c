"""`StopEscalation` returns the right actions for each stop request at its deadlines; the test sets the time."""

from __future__ import annotations

from services.worker.stop_escalation import RequestKind, StopAction, StopEscalation


def make() -> StopEscalation:
    return StopEscalation(stop_grace=60, kill_grace=30, drain_grace=100)


def actions(escalation: StopEscalation, until: int, begin: int = 0) -> list[tuple[int, StopAction]]:
    """Return (second, action) of all actions up to the first KILL."""
    found = []
    for now in range(begin, until):
        action = escalation.next_action(float(now))
        if action is not None:
            found.append((now, action))
        if action is StopAction.KILL:
            break
    return found


def test_nothing_happens_without_a_request() -> None:
    assert actions(make(), 500) == []


def test_stop_and_pause_send_the_request_then_terminate_then_kill() -> None:
    requests: tuple[RequestKind, ...] = ("stop", "pause")
    for request in requests:
        escalation = make()
        escalation.request(request, 0)
        assert actions(escalation, 500) == [
            (0, StopAction.SEND_REQUEST),
            (60, StopAction.TERMINATE),
            (90, StopAction.KILL),
        ]


def test_a_pause_has_no_deadline_before_the_first_step() -> None:
    escalation = make()
    found = []
    for now in range(1000):
        escalation.request("pause", float(now), stepping=now >= 500)
        action = escalation.next_action(float(now))
        if action is not None:
            found.append((now, action))
        if action is StopAction.KILL:
            break
    assert found == [(0, StopAction.SEND_REQUEST), (560, StopAction.TERMINATE), (590, StopAction.KILL)]


def test_a_stop_during_the_preparation_has_its_deadlines() -> None:
    escalation = make()
    escalation.request("pause", 0, stepping=False)
    escalation.request("stop", 10, stepping=False)
    assert actions(escalation, 500, 10) == [
        (10, StopAction.SEND_REQUEST),
        (70, StopAction.TERMINATE),
        (100, StopAction.KILL),
    ]


def test_cancel_kills_at_the_end_of_the_grace() -> None:
    escalation = make()
    escalation.request("stop", 0, cancel=True)
    assert actions(escalation, 500) == [(0, StopAction.SEND_REQUEST), (60, StopAction.KILL)]


def test_a_stop_that_becomes_a_cancel_keeps_its_first_deadline() -> None:
    escalation = make()
    escalation.request("stop", 0)
    assert actions(escalation, 30) == [(0, StopAction.SEND_REQUEST)]
    escalation.request("stop", 30, cancel=True)
    assert actions(escalation, 500, 30) == [(60, StopAction.KILL)]


def test_complete_is_requested_once_and_never_kills() -> None:
    escalation = make()
    escalation.request("complete", 0)
    assert actions(escalation, 5000) == [(0, StopAction.SEND_REQUEST)]


def test_complete_after_pause_removes_the_deadlines() -> None:
    escalation = make()
    escalation.request("pause", 0)
    escalation.request("complete", 10)
    assert escalation.requested == "complete"
    assert actions(escalation, 5000, 10) == [(10, StopAction.SEND_REQUEST)]


def test_a_repeated_request_moves_no_deadline() -> None:
    escalation = make()
    for now in range(0, 50, 2):
        escalation.request("stop", float(now))
        escalation.next_action(float(now))
    assert actions(escalation, 500, 50) == [(60, StopAction.TERMINATE), (90, StopAction.KILL)]


def test_a_milder_request_is_ignored_and_a_more_severe_one_is_sent() -> None:
    escalation = make()
    escalation.request("stop", 0)
    escalation.request("pause", 1)
    assert escalation.requested == "stop"
    escalation = make()
    escalation.request("pause", 0)
    escalation.next_action(0)
    escalation.request("stop", 10)
    assert escalation.next_action(10) is StopAction.SEND_REQUEST


def test_drain_kills_at_its_own_deadline_whatever_came_before() -> None:
    escalation = make()
    escalation.request("drain", 0)
    assert actions(escalation, 500) == [(0, StopAction.SEND_REQUEST), (100, StopAction.KILL)]
    escalation = StopEscalation(stop_grace=60, kill_grace=30, drain_grace=10)
    escalation.request("stop", 0)
    escalation.next_action(0)
    escalation.request("drain", 5)
    assert escalation.requested == "stop"
    assert actions(escalation, 500, 5) == [(15, StopAction.KILL)]
