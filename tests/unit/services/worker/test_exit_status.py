"""What the end of a trainer means, and whom it is charged to."""

from __future__ import annotations

import signal

import pytest

from common.child.protocol import Failed, Finished
from common.jobs.retry import INFRASTRUCTURE, USER, Fault
from services.worker.exit_status import Ending, KillReason, classify


def ending(
    status: int,
    *,
    finished: Finished | None = None,
    failed: Failed | None = None,
    killed: KillReason | None = None,
    oom_kills: int = 0,
) -> Ending:
    return classify(
        status, finished=finished, failed=failed, killed=killed, oom_kills=oom_kills, log_tail="Traceback: the tail"
    )


def test_a_finished_trainer_ends_as_it_said() -> None:
    assert ending(0, finished=Finished(outcome="paused")) == Ending(outcome="paused")


@pytest.mark.parametrize("status", [1, -9])
def test_finished_without_a_clean_exit_is_no_finish(status: int) -> None:
    assert ending(status, finished=Finished(outcome="completed")).outcome is None


def test_silence_with_status_0_is_no_finish() -> None:
    assert ending(0).fault is Fault.USER_ERROR


def test_an_error_of_the_job_keeps_its_own_code() -> None:
    told = ending(1, failed=Failed(code="invalid_data", message="no such file"))
    assert (told.fault, told.code, told.message) == (Fault.USER_ERROR, "invalid_data", "no such file")


def test_cuda_out_of_memory_has_a_code_of_its_own() -> None:
    told = ending(1, failed=Failed(code="whatever", message="lower it", kind="cuda_oom"))
    assert (told.fault, told.code) == (Fault.CUDA_OOM, "cuda_out_of_memory")


def test_a_training_that_diverged_has_a_code_of_its_own() -> None:
    told = ending(1, failed=Failed(code="training_diverged", message="the loss is nan", kind="diverged"))
    assert (told.fault, told.code, told.message) == (Fault.DIVERGED, "training_diverged", "the loss is nan")


def test_a_kill_by_the_kernel_for_memory_names_what_to_lower() -> None:
    told = ending(-signal.SIGKILL, oom_kills=1)
    assert told.fault is Fault.OOM_KILLED
    assert "micro_batch_size" in told.message
    assert told.fault in INFRASTRUCTURE


def test_other_signals_are_the_infrastructure_s() -> None:
    told = ending(-signal.SIGSEGV, oom_kills=1)
    assert told.fault is Fault.WORKER_LOST
    assert "SIGSEGV" in told.message
    assert ending(-signal.SIGKILL).fault is Fault.WORKER_LOST
    assert "signal 99" in ending(-99).message


def test_an_exit_without_a_word_is_charged_to_the_job_with_the_end_of_its_log() -> None:
    told = ending(3)
    assert told.fault in USER
    assert "the tail" in told.message


def test_what_the_supervisor_killed_is_nobody_s_fault_but_for_a_standstill() -> None:
    for reason in (KillReason.STOP_GRACE, KillReason.DRAIN, KillReason.LEASE_LOST):
        assert ending(-9, killed=reason, oom_kills=1) == Ending(killed=reason)
    assert ending(-9, killed=KillReason.NO_PROGRESS).fault is Fault.NO_PROGRESS
