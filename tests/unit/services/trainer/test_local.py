"""`python -m services.trainer --local` trains without other services and prints to the terminal."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.checkpoint import save_model
from common.config import LMConfig, dump_yaml, load_lm_config
from common.prediction.calibration import write_calibration
from common.prediction.machine import this_machine
from common.terminal import Terminal
from services.trainer import local
from tests.own_vocabulary import own_model, own_vocabulary
from tests.paths import ROOT
from tests.unit.common.prediction.calibrations import calibration
from tidal_client.vocabulary import CheckpointMode

pytestmark = pytest.mark.timeout(300)
Config = Callable[..., LMConfig]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.trainer", "--local", *arguments]


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command(*arguments), cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=250)


def test_a_training_prints_its_losses_and_writes_the_model(make_config: Config, tmp_path: Path) -> None:
    (tmp_path / "lm.yaml").write_text(dump_yaml(make_config()))
    found = run(tmp_path, "lm", "--config", "lm.yaml", "--out", "runs/first")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "validation loss 10.8" in found.stdout
    assert "completed: runs/first" in found.stdout
    assert (tmp_path / "runs/first/tiny_v1.0.0.safetensors").is_file()
    assert list((tmp_path / "runs/first/metrics").glob("metrics-1-*.jsonl"))
    assert list((tmp_path / "runs/first/tensorboard_logs").glob("events.out.tfevents.*"))


def test_ctrl_c_pauses_and_the_same_command_goes_on(make_config: Config, tmp_path: Path) -> None:
    (tmp_path / "lm.yaml").write_text(dump_yaml(make_config(training={"max_steps": None, "epochs": 100_000})))
    arguments = ("lm", "--config", "lm.yaml", "--out", "runs/first")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with subprocess.Popen(command(*arguments), cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "loss" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 3, rest
    (tmp_path / "lm.yaml").write_text(dump_yaml(make_config(training={"max_steps": 10_000_000, "max_seconds": 0.001})))
    found = run(tmp_path, *arguments)
    assert found.returncode == 0, found.stdout
    assert "resumed" in found.stdout


def test_a_corpus_may_be_in_the_working_directory_of_the_command(make_config: Config, tmp_path: Path) -> None:
    (tmp_path / "data/words.txt").rename(tmp_path / "mine.txt")
    (tmp_path / "lm.yaml").write_text(dump_yaml(make_config(training={"tensorboard": False})))
    found = run(tmp_path, "lm", "--config", "lm.yaml", "--out", "runs/first", "--data", "mine.txt")
    assert found.returncode == 0, found.stdout + found.stderr
    assert not (tmp_path / "runs/first/tensorboard_logs").exists()


def test_the_prediction_omits_the_steps_of_the_checkpoint_to_resume(
    make_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_calibration(tmp_path, calibration(this_machine()))
    printed: list[str] = []
    monkeypatch.setattr(Terminal, "print", lambda _self, text, **_style: printed.append(text))
    options = argparse.Namespace(out=tmp_path / "new", data_dir=tmp_path)
    config = make_config(training={"max_steps": 6}, evaluation={"max_batches": 1})
    for name, left in (("step-00000004.1", "2 steps"), ("renamed-step", "2 steps"), ("model.safetensors", "6 steps")):
        start = tmp_path / "other" / name
        if "step" in name:
            start.mkdir(parents=True)
            (start / "manifest.json").write_text('{"step": 4}')
        else:
            start.touch()
        printed.clear()
        local._print_prediction(config, options, Terminal(), start, CheckpointMode.AUTO)
        assert left in printed[0]


def test_a_corpus_that_cannot_be_read_is_an_error_with_its_place(make_config: Config, tmp_path: Path) -> None:
    (tmp_path / "lm.yaml").write_text(dump_yaml(make_config()))
    file = ROOT / "tests/data/cases/surrogate.jsonl"
    found = run(tmp_path, "lm", "--config", "lm.yaml", "--out", "runs/first", "--data", str(file))
    assert found.returncode == 1
    output = " ".join(found.stdout.split())
    assert f"lm training failed: {file}: line 61: 'text' contains half a surrogate pair" in output
    assert "Traceback" not in found.stdout + found.stderr


def test_a_misspelt_key_names_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "lm.yaml").write_text("training:\n  learnin_rate: 0.1\n")
    found = run(tmp_path, "lm", "--config", "lm.yaml", "--out", "x")
    assert found.returncode == 1
    assert "did you mean 'learning_rate'?" in found.stdout.replace("\n", " ")


def test_a_controller_without_a_language_model_is_refused(tmp_path: Path) -> None:
    found = run(tmp_path, "rl", "--out", "x")
    assert found.returncode == 1
    assert "--checkpoint" in found.stdout


def test_a_training_from_a_checkpoint_records_its_vocabulary(make_config: Config, tmp_path: Path) -> None:
    vocabulary, base = own_vocabulary(), tmp_path / "base"
    base.mkdir()
    save_model(own_model(vocabulary, context_length=16), base / "model.safetensors")
    (tmp_path / "lm.yaml").write_text(
        dump_yaml(
            make_config(
                model={"d_model": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 32}, training={"max_steps": 1}
            )
        )
    )
    found = run(tmp_path, "lm", "--config", "lm.yaml", "--out", "new", "--checkpoint", "base/model.safetensors")
    assert found.returncode == 0, found.stdout + found.stderr
    config = load_lm_config(tmp_path / "new/config.yaml")
    assert (config.data.tokenizer, config.model.vocab_size) == (vocabulary.name, vocabulary.size)
