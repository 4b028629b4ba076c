"""While a corpus is loaded or a validation runs, the process reports that it is alive and obeys stop requests."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.checkpoint import save_model
from common.config import DataConfig, EvaluationConfig, LMConfig, ModelConfig, RLConfig
from common.data import gpt2_vocabulary
from common.data.corpus import Progress, _cache_name
from common.model import TransformerLM
from common.rl import train_controller
from common.training import loading
from common.training.hooks import Outcome, StopRequest
from common.training.loading import StoppedWhileLoading, load_corpus
from common.training.pretrain import pretrain
from services.trainer.controller import ablate_controller
from services.trainer.language_model import evaluate_checkpoint

STORIES = DataConfig(source="builtin:stories", max_documents=1100)
Recorders = Callable[..., Any]
NOWHERE = Path("/nowhere")


@pytest.mark.parametrize("request_", [StopRequest.STOP, StopRequest.DRAIN])
def test_a_stop_request_is_obeyed_while_tokenising(request_: StopRequest, recorder: Recorders, tmp_path: Path) -> None:
    hooks = recorder(request_, in_phase="loading data")
    with pytest.raises(StoppedWhileLoading):
        load_corpus(STORIES, tmp_path, hooks)
    expected = {StopRequest.STOP: Outcome.STOPPED, StopRequest.DRAIN: Outcome.DRAINED}[request_]
    rl = RLConfig(threads=1, device="cpu")
    model = save_model(TransformerLM(ModelConfig(d_model=2, num_heads=1, num_layers=1, ffn_dim=1)), tmp_path / "m.pth")
    where = {"data": STORIES, "data_dir": tmp_path}
    assert train_controller(rl, model, tmp_path / "run", hooks, **where) is expected
    assert ablate_controller(rl, model, NOWHERE, tmp_path / "run", hooks, **where) is expected
    evaluation = EvaluationConfig()
    assert evaluate_checkpoint(model, tmp_path / "run", hooks, evaluation=evaluation, **where) is expected
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("busy", ["lock", "fetch"])
def test_a_stop_request_is_obeyed_during_a_long_library_call(
    busy: str, recorder: Recorders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "REPORT_SECONDS", 0.0)
    hooks = recorder()
    release = threading.Event()

    def stop_after_three_heartbeats() -> StopRequest | None:
        return StopRequest.DRAIN if hooks.phases.count("loading data") > 3 else None

    hooks.requested_stop = stop_after_three_heartbeats
    if busy == "fetch":

        def fetch(config: DataConfig, *, data_dir: Path, progress: Progress, vocabulary: None) -> None:
            progress("fetch", 0, None)
            release.wait(60)

        monkeypatch.setattr(loading, "open_corpus", fetch)
        monkeypatch.setattr(loading, "CLEANUP_SECONDS", 0.1)
        with pytest.raises(StoppedWhileLoading):
            load_corpus(STORIES, tmp_path, hooks)
        release.set()
        return
    (tmp_path / "cache").mkdir()
    lock = tmp_path / "cache" / f"{_cache_name(STORIES.corpora()[0], gpt2_vocabulary())}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # this test acts as another process that builds the cache
        with pytest.raises(StoppedWhileLoading):
            load_corpus(STORIES, tmp_path, hooks)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [lock.name]


def test_a_pause_is_obeyed_at_once_where_there_is_a_checkpoint(recorder: Recorders, tmp_path: Path) -> None:
    hooks = recorder(StopRequest.PAUSE, in_phase="loading data")
    with pytest.raises(StoppedWhileLoading):
        load_corpus(STORIES, tmp_path, hooks, may_pause=True)


def test_a_pause_without_a_checkpoint_waits_for_the_corpus(recorder: Recorders, tmp_path: Path) -> None:
    hooks = recorder(StopRequest.PAUSE, in_phase="loading data")
    assert len(load_corpus(STORIES, tmp_path, hooks).train) > 0


def test_every_piece_of_a_corpus_is_a_sign_of_life(
    recorder: Recorders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "REPORT_SECONDS", 0.0)
    hooks = recorder()
    load_corpus(STORIES, tmp_path, hooks)
    assert set(hooks.phases) == {"loading data"}
    assert len(hooks.phases) >= 4, "one report at the start, three for batches of documents, one for hashing"
    assert hooks.suspensions == len(hooks.phases) - 1


def test_signs_of_life_are_not_sent_more_often_than_needed(recorder: Recorders, tmp_path: Path) -> None:
    hooks = recorder()
    load_corpus(STORIES, tmp_path, hooks)
    assert hooks.phases == ["loading data"]


def test_every_batch_of_a_validation_is_a_sign_of_life(
    make_config: Callable[..., LMConfig],
    recorder: Recorders,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "REPORT_SECONDS", 0.0)
    config = make_config(training={"max_steps": 1}, evaluation={"every_steps": 1000, "max_batches": 2, "prompts": []})
    hooks = recorder()
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert hooks.phases.count("evaluation") == 2 * (1 + 2), "two batches before the first step and two at the end"
