"""The trainer's exit status and messages show whether an attempt completed, was stopped early, or failed and why."""

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


def test_a_finished_trainer_has_the_outcome_that_it_reported() -> None:
    assert ending(0, finished=Finished(outcome="paused")) == Ending(outcome="paused")


@pytest.mark.parametrize("status", [1, -9])
def test_finished_without_a_clean_exit_does_not_count(status: int) -> None:
    assert ending(status, finished=Finished(outcome="completed")).outcome is None


def test_status_0_without_a_message_is_a_failure() -> None:
    assert ending(0).fault is Fault.USER_ERROR


def test_an_error_of_the_job_keeps_its_own_code() -> None:
    result = ending(1, failed=Failed(code="invalid_data", message="no such file"))
    assert (result.fault, result.code, result.message) == (Fault.USER_ERROR, "invalid_data", "no such file")


def test_cuda_out_of_memory_has_its_own_code() -> None:
    result = ending(1, failed=Failed(code="whatever", message="lower it", kind="cuda_oom"))
    assert (result.fault, result.code) == (Fault.CUDA_OOM, "cuda_out_of_memory")


def test_a_training_that_diverged_has_its_own_code() -> None:
    result = ending(1, failed=Failed(code="training_diverged", message="the loss is nan", kind="diverged"))
    assert (result.fault, result.code, result.message) == (Fault.DIVERGED, "training_diverged", "the loss is nan")


def test_a_kill_by_the_kernel_for_memory_names_what_to_lower() -> None:
    result = ending(-signal.SIGKILL, oom_kills=1)
    assert result.fault is Fault.OOM_KILLED
    assert "micro_batch_size" in result.message
    assert result.fault in INFRASTRUCTURE


def test_other_signals_are_infrastructure_faults() -> None:
    result = ending(-signal.SIGSEGV, oom_kills=1)
    assert result.fault is Fault.WORKER_LOST
    assert "SIGSEGV" in result.message
    assert ending(-signal.SIGKILL).fault is Fault.WORKER_LOST
    assert "signal 99" in ending(-99).message


def test_an_exit_without_a_message_is_a_user_error_with_the_end_of_the_log() -> None:
    result = ending(3)
    assert result.fault in USER
    assert "the tail" in result.message


def test_a_kill_by_the_supervisor_is_a_fault_only_without_progress() -> None:
    for reason in (KillReason.STOP_GRACE, KillReason.DRAIN, KillReason.LEASE_LOST):
        assert ending(-9, killed=reason, oom_kills=1) == Ending(killed=reason)
    assert ending(-9, killed=KillReason.NO_PROGRESS).fault is Fault.NO_PROGRESS
