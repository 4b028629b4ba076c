"""The messages between the supervisor and its trainer child, and what the child knows about the lease."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from common.child.lease_guard import LeaseGuard, lease_clock
from common.child.protocol import (
    Channel,
    ChildJob,
    Ping,
    Progress,
    ProtocolError,
    Running,
    Start,
    Suspend,
    decode_message,
    encode_message,
)
from common.child.socket import PARENT_PID_VARIABLE


def start_message() -> Start:
    job = ChildJob(job_id="j1", attempt=2, job_type="lm-training", experiment_id="e1", payload={"config": {"a": 1}})
    return Start(job=job, experiments_dir="/tmp/x", data_dir="/tmp/d")


def test_every_message_survives_the_line_and_is_plain_json() -> None:
    line = encode_message(start_message())
    assert json.loads(line)["job"]["payload"] == {"config": {"a": 1}}
    assert line.count(b"\n") == 1
    assert decode_message(line) == start_message()


@pytest.mark.parametrize("line", [b"", b"not json", b'{"type": "unknown"}', b'{"type": "progress", "step": "x"}'])
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_message(line)


def test_messages_arrive_in_order_and_end_of_file_shows_that_the_peer_has_ended() -> None:
    parent_end, child_end = Channel.pair()
    child = Channel(child_end)
    parent_end.send(start_message())
    for step in range(50):
        parent_end.send(Progress(step=step, total_steps=50))
    parent_end.close()
    assert child.receive() == start_message()
    steps = []
    with pytest.raises(EOFError):
        while True:
            message = child.receive(5)
            assert isinstance(message, Progress)
            steps.append(message.step)
    assert steps == list(range(50))
    child.close()


def test_receive_gives_up_after_its_timeout() -> None:
    parent_end, child_end = Channel.pair()
    assert parent_end.receive(0.01) is None
    parent_end.close()
    child_end.close()


def test_a_droppable_message_never_blocks_on_a_peer_that_does_not_read() -> None:
    parent_end, child_end = Channel.pair()
    sent = sum(parent_end.send(Progress(step=n, total_steps=1), droppable=True) for n in range(5000))
    assert 0 < sent < 5000
    parent_end.close()
    child_end.close()


def test_silence_suspends_the_child_and_a_ping_wakes_it() -> None:
    line = LeaseGuard(pause_after_seconds=60)
    assert not line.suspended()
    line.handle(Suspend())
    assert line.suspended()
    waiter = threading.Thread(target=line.wait)
    waiter.start()
    line.handle(Ping(renewed_at=lease_clock()))
    waiter.join(5)
    assert not waiter.is_alive()
    assert LeaseGuard(pause_after_seconds=0.0).suspended()


def test_an_old_ping_that_arrives_late_does_not_extend_the_right_to_run() -> None:
    line = LeaseGuard(pause_after_seconds=5)
    line.handle(Ping(renewed_at=lease_clock() - 100))
    assert not line.suspended(), "the time of the start counts, it is newer"
    assert LeaseGuard(pause_after_seconds=-1).suspended()


def test_a_child_that_was_slow_to_begin_counts_from_the_last_renewal_not_from_its_beginning() -> None:
    assert LeaseGuard(pause_after_seconds=5, renewed_at=lease_clock() - 6).suspended()
    assert not LeaseGuard(pause_after_seconds=5, renewed_at=lease_clock() - 1).suspended()


def test_a_process_whose_parent_has_already_ended_exits_at_once() -> None:
    code = "from common.child.lease_guard import die_with_parent; die_with_parent(); print('alive')"
    for parent, expected in ((os.getpid(), b"alive\n"), (1, b"")):
        environ = {**os.environ, PARENT_PID_VARIABLE: str(parent)}
        result = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, timeout=60)
        assert result.stdout == expected, result.stderr


def test_the_child_finds_its_end_in_the_environment() -> None:
    parent_end, child_end = Channel.pair()
    code = (
        "from common.child.protocol import Channel, Running\n"
        "channel = Channel.from_environment()\n"
        "assert channel.receive(30).type == 'start'\n"
        "channel.send(Running())\n"
    )
    environ = {**os.environ, "TIDAL_CHILD_FD": str(child_end.fileno())}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, pass_fds=[child_end.fileno()]) as process:
        child_end.close()
        parent_end.send(start_message())
        assert parent_end.receive(30) == Running()
        with pytest.raises(EOFError):
            parent_end.receive(30)
        assert process.wait(30) == 0
    parent_end.close()
