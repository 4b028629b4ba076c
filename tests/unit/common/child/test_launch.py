"""A launched child is connected to its parent, and `close` ends the child and all processes that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from common.child.launch import LaunchedChild, describe_exit, launch, wait_or_kill
from common.child.protocol import Channel, ChildJob, Running, Start, Stop

TALKS = """
from common.child.lease_guard import die_with_parent
from common.child.protocol import Channel, PhaseEntered
die_with_parent()
channel = Channel.from_environment()
channel.send(PhaseEntered(name=str(channel.receive().job.attempt)))
channel.receive()
"""
STAYS = """
import signal, subprocess
from common.child.protocol import Channel, Running
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
Channel.from_environment().send(Running())
signal.pause()
"""
LEAVES_A_PROCESS = """
import subprocess
from common.child.protocol import Channel, Running
subprocess.Popen(["sleep", "600"])
Channel.from_environment().send(Running())
"""
START = Start(
    job=ChildJob(job_id="job_1", attempt=7, job_type="lm-training", experiment_id="e", payload={}),
    experiments_dir="experiments",
    data_dir="data",
)


def start(code: str) -> LaunchedChild[Channel]:
    return launch(Channel, [sys.executable, "-c", code], os.environ)


def family(child: LaunchedChild[Channel]) -> list[psutil.Process]:
    leader = psutil.Process(child.pid)
    return [leader, *leader.children()]


def test_a_child_sends_messages_to_its_parent_and_its_exit_status_is_returned() -> None:
    child = start(TALKS)
    child.channel.send(START)
    received = child.channel.receive(30)
    assert received is not None and received.model_dump() == {"type": "phase", "name": "7", "disk": None}
    assert not child.ended
    child.channel.send(Stop(request="stop"))
    assert child.wait(30) == 0
    assert child.ended
    child.close()


def test_a_child_that_stays_is_killed_with_all_that_it_has_started() -> None:
    child = start(STAYS)
    assert child.channel.receive(30) == Running()
    processes = family(child)
    assert len(processes) == 2
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    child.terminate()
    assert child.wait(0.0) == -signal.SIGKILL
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    child.close()


def test_close_ends_what_outlived_the_child() -> None:
    child = start(LEAVES_A_PROCESS)
    assert child.channel.receive(30) == Running()
    left = [process for process in psutil.process_iter() if _group(process) == child.pid]
    assert child.wait(30) == 0
    child.close()
    assert psutil.wait_procs(left, timeout=10)[1] == []
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


def test_what_a_child_writes_goes_to_the_descriptor_it_was_given() -> None:
    reader, writer = os.pipe()
    code = "import os, sys\nprint(*os.environ)\nprint('wrong', file=sys.stderr)"
    child = launch(Channel, [sys.executable, "-I", "-c", code], {"ONLY": "this"}, output=writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    assert child.wait(30) == 0
    child.close()
    assert "wrong" in text
    assert {"ONLY", "TIDAL_CHILD_FD", "TIDAL_PARENT_PID"} <= set(text.split())


def test_a_command_that_cannot_be_executed_leaves_no_descriptor() -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        launch(Channel, ["/no/such/program"], {})
    assert psutil.Process().num_fds() == before


def test_a_process_without_a_group_of_its_own_is_killed_alone() -> None:
    process = subprocess.Popen(["sleep", "600"])
    assert wait_or_kill(process, 0.0) == -signal.SIGKILL


def test_an_exit_status_in_words() -> None:
    assert [describe_exit(status) for status in (0, 3, -9, -70)] == [
        "exit code 0",
        "exit code 3",
        "SIGKILL",
        "signal 70",
    ]


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
