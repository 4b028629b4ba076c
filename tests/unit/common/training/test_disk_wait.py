"""A job in any phase waits for disk space, obeys stop requests while it waits, and loses no step."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from common.checkpoint import CheckpointManager
from common.config import DataConfig, LMConfig
from common.disk import MIB, Shortage
from common.errors import DiskFullError
from common.training import disk_wait, loading
from common.training.disk_wait import StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.hooks import Outcome, StopRequest
from common.training.loading import StoppedWhileLoading, load_corpus
from common.training.pretrain import pretrain

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
FULL = Shortage("experiments", 700 * MIB, 1024 * MIB, 1024 * MIB)
EMPTY = Shortage("experiments", 0, 1024 * MIB, 1024 * MIB)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "REPORT_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(disk_wait, name, 0.005)
    monkeypatch.setattr(disk_wait._DiskWait.wait, "__kwdefaults__", {"seconds": 0.005})


def full_for(checks: int, shortage: Shortage = FULL, *, after: int = 0) -> Callable[[], Shortage | None]:
    """Return a function that returns None in `after` calls, then `shortage` in `checks` calls, and then always None."""
    answers: Iterator[Shortage | None] = iter([None] * after + [shortage] * checks)
    return lambda: next(answers, None)


def reported(hooks: Any, name: str) -> list[dict[str, Any]]:
    return [details for event, details in hooks.events if event == name]


def test_a_training_that_waited_gives_the_same_numbers(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    calm, kept_waiting = recorder(), recorder(find_shortage=full_for(9, after=6))
    for name, hooks in (("calm", calm), ("waiting", kept_waiting)):
        assert pretrain(make_config(), tmp_path / name, hooks, data_dir=data_dir) is Outcome.COMPLETED
    for series in ("Losses/Total", "Losses/Validation", "Gradient Norm", "Learning Rate"):
        assert kept_waiting.series(series) == calm.series(series)
    [begun], [ended] = reported(kept_waiting, "waiting_for_disk"), reported(kept_waiting, "disk_wait_ended")
    find_shortage = {"disk": "experiments", "free_bytes": 700 * MIB, "needed_bytes": 1024 * MIB}
    assert begun == {**find_shortage, "saved": True}
    assert "left_for" not in ended
    assert kept_waiting.waits[0] == FULL and kept_waiting.waits[-1] is None and len(kept_waiting.waits) > 3
    calm_model, model = (load_file(tmp_path / name / "tiny_v1.0.0.safetensors") for name in ("calm", "waiting"))
    assert all(model[name].equal(tensor) for name, tensor in calm_model.items())


@pytest.mark.parametrize("request_", [StopRequest.PAUSE, StopRequest.STOP, StopRequest.DRAIN])
@pytest.mark.parametrize("shortage", [FULL, EMPTY])
def test_a_stop_request_is_obeyed_with_the_last_step_saved(
    request_: StopRequest, shortage: Shortage, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks: Any = recorder(request_, find_shortage=lambda: shortage if hooks.series("Losses/Total").get(3) else None)
    hooks.requested_stop = lambda: request_ if len(hooks.waits) > 4 else None
    outcome = pretrain(make_config(training={"max_steps": 500, "epochs": 500}), tmp_path, hooks, data_dir=data_dir)
    assert outcome.value == {"pause": "paused", "stop": "stopped", "drain": "drained"}[request_.value]
    newest = CheckpointManager(tmp_path / "checkpoints", keep_last=3).latest()
    assert newest is not None and newest.step == max(hooks.series("Losses/Total"))
    assert [info.step for info in hooks.checkpoints].count(newest.step) == 1, (
        "the step is saved once: when the wait begins or when the job ends"
    )
    assert reported(hooks, "disk_wait_ended")[-1]["left_for"] == request_.value


def test_complete_writes_the_model_into_the_reserve(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks: Any = recorder(find_shortage=lambda: FULL if hooks.series("Losses/Total").get(3) else None)
    hooks.requested_stop = lambda: StopRequest.COMPLETE if len(hooks.waits) > 3 else None
    config = make_config(training={"max_steps": 500, "epochs": 500})
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert max(hooks.series("Losses/Total")) == 3
    assert (tmp_path / "tiny_v1.0.0.safetensors").is_file()


def test_a_checkpoint_that_found_no_room_is_written_before_the_next_step(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder()
    refusals = iter([True] * 4)
    seen: list[int] = []

    def before_checkpoint() -> None:
        seen.append(max(hooks.series("Losses/Total"), default=0))
        if next(refusals, False):
            raise DiskFullError("no room")

    hooks.before_checkpoint = before_checkpoint
    config = make_config(checkpoint={"every_steps": 2, "every_seconds": 3600.0})
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert list(hooks.series("Losses/Total")) == [1, 2, 3, 4, 5, 6]
    [failed] = reported(hooks, "checkpoint_failed")
    assert failed["reason"] == "no room"
    assert len(set(seen[1:5])) == 1, "no step was taken between the refusals"
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))
    assert len(reported(hooks, "waiting_for_disk")) == 1
    best = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert best["value"] == min(hooks.series("Losses/Validation")[step] for step in (2, 4, 6)), (
        "the best value survives the refused checkpoints"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_file_that_finds_no_room_is_written_again(number: int, recorder: Recorders, tmp_path: Path) -> None:
    from common.files import write_atomic

    hooks, tries = recorder(), []

    def write(path: Path) -> None:
        tries.append(path)
        path.write_text("whole")
        if len(tries) < 4:
            raise OSError(number, os.strerror(number))

    write_when_disk_has_space(hooks, lambda: write_atomic(tmp_path / "file", write))
    assert (tmp_path / "file").read_text() == "whole" and len(tries) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert os.strerror(number) in reported(hooks, "waiting_for_disk")[0]["reason"]


def test_a_stop_request_ends_the_wait_of_a_file(recorder: Recorders) -> None:
    hooks = recorder(find_shortage=lambda: FULL)
    hooks.requested_stop = lambda: StopRequest.PAUSE if len(hooks.waits) > 2 else None
    with pytest.raises(StoppedWaiting) as stopped:
        write_when_disk_has_space(hooks, lambda: pytest.fail("it was written without room"))
    assert stopped.value.request is StopRequest.PAUSE


def test_a_stop_request_that_cannot_be_obeyed_yet_does_not_end_the_wait(recorder: Recorders) -> None:
    hooks = recorder(find_shortage=full_for(5))
    hooks.requested_stop = lambda: StopRequest.PAUSE
    assert wait_for_disk(hooks, obeyed={StopRequest.STOP}) is None
    assert len(hooks.waits) >= 4


def test_a_corpus_waits_for_disk_space_while_it_is_tokenised_but_not_when_it_is_cached(
    recorder: Recorders, tmp_path: Path
) -> None:
    config = DataConfig(source="builtin:stories", max_documents=1100)
    first = recorder(find_shortage=full_for(4))
    built = load_corpus(config, tmp_path, first)
    assert len(reported(first, "waiting_for_disk")) == 1 and first.waits[-1] is None
    there = recorder(find_shortage=lambda: FULL)
    assert load_corpus(config, tmp_path, there).digest == built.digest
    assert there.waits == []


@pytest.mark.parametrize("request_", [StopRequest.STOP, StopRequest.DRAIN])
def test_a_stop_request_ends_the_loading_of_a_corpus_whichever_thread_reads_it_first(
    request_: StopRequest, recorder: Recorders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise DiskFullError("no room")

    monkeypatch.setattr(loading, "open_corpus", opened)
    hooks = recorder(find_shortage=lambda: FULL)
    main = threading.current_thread()
    # Only threads other than the main thread see the stop request.
    hooks.requested_stop = lambda: request_ if threading.current_thread() is not main else None
    with pytest.raises(StoppedWhileLoading) as stopped:
        load_corpus(DataConfig(source="builtin:stories", max_documents=1100), tmp_path, hooks)
    assert stopped.value.request is request_
