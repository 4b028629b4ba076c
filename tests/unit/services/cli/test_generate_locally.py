"""`tidal generate` with a local file prints the same text as the library, needs no service, and ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_model, save_model
from common.controller import GatingPolicy, load_policy
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from tests.paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    torch.manual_seed(4)
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    save_model(TransformerLM(config).eval(), folder / "mini.safetensors")
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, folder / "policy.pth")
    return folder


def hear_ctrl_c() -> None:
    """Restore the default handling of SIGINT, which a shell disables for its background jobs and their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", "generate", "-c", "mini.safetensors", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TIDAL_URL": "http://127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def test_the_text_is_the_librarys(folder: Path) -> None:
    given = ["Once", "-g", "learned", "-p", "policy.pth", "--seed", "11", "-n", "9", "--stop", "zzz", "--json"]
    process = start(folder, *given)
    printed, remarks = process.communicate(timeout=100)
    assert process.returncode == 0, remarks
    expected = generate(
        load_model(folder / "mini.safetensors"),
        "Once",
        gating_mode="learned",
        policy=load_policy(folder / "policy.pth"),
        seed=11,
        max_tokens=9,
    )
    answer = json.loads(printed)
    assert answer["text"] == expected.text
    assert [step["id"] for step in answer["trajectory"]] == expected.token_ids
    assert answer["effective"]["seed"] == 11


def test_ctrl_c_ends_it_at_once_with_130(folder: Path) -> None:
    process = start(folder, "Once", "-n", "4096", "--gating", "random")
    assert process.stdout is not None
    assert process.stdout.read(4) == "Once"
    process.send_signal(signal.SIGINT)
    _, remarks = process.communicate(timeout=30)  # the pipe is closed only when the child process has ended as well
    assert process.returncode == 130
    assert remarks.startswith("stopped after ") and remarks.count("\n") == 1


def test_what_the_child_refuses_is_one_line(folder: Path) -> None:
    process = start(folder, "Once", "-g", "learned", "-p", "mini.safetensors")
    printed, remarks = process.communicate(timeout=100)
    assert (process.returncode, printed) == (1, "")
    assert "not the state dict of a controller" in remarks and remarks.count("\n") == 1
