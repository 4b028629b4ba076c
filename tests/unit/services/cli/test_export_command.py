"""Which checkpoint `tidal export` selects, what it prints, and what it rejects."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common.checkpoint import load_model, save_model
from common.config import get_settings
from common.errors import ConflictError, NotFoundError
from common.model import ModelConfig, TransformerLM
from services.cli import local_generation
from services.cli.checkpoint_source import checkpoint_path, is_path
from services.cli.main import app
from tests.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that contains a store of experiments and the output of `tidal train lm --out out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDAL_EXPERIMENTS_DIR", str(tmp_path / "experiments"))
    for name in ("experiments/first", "out"):
        steps = tmp_path / name / "checkpoints"
        for step in ("step-000000001", "step-000000002"):
            (steps / step).mkdir(parents=True)
            (steps / step / "manifest.json").write_text("{}")
        best = {"name": "checkpoints/step-000000001", "metric": "validation loss", "value": 1.0, "step": 1}
        (steps / "best.json").write_text(json.dumps(best))
    (tmp_path / "experiments" / "first" / "mini_v1.pth").touch()
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("first", "experiments/first/mini_v1.pth"),
        ("first/final", "experiments/first/mini_v1.pth"),
        ("experiments/first/best", "experiments/first/checkpoints/step-000000001"),
        ("first/latest", "experiments/first/checkpoints/step-000000002"),
        ("first/checkpoints/step-000000001", "experiments/first/checkpoints/step-000000001"),
        ("out", "out/checkpoints/step-000000002"),
        ("./out/best", "out/checkpoints/step-000000001"),
        ("out/checkpoints/step-000000002", "out/checkpoints/step-000000002"),
        ("experiments/first/mini_v1.pth", "experiments/first/mini_v1.pth"),
    ],
)
def test_what_a_person_names_is_found(folder: Path, text: str, meant: str) -> None:
    assert checkpoint_path(text) == folder / meant


def test_the_store_of_a_stopped_stack_is_found_unless_another_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "home").mkdir()
    (folder / "experiments").rename(folder / "home" / "experiments")
    with pytest.raises(NotFoundError, match="no such experiment"):
        checkpoint_path("first/best")  # only the folder in TIDAL_EXPERIMENTS_DIR is searched
    monkeypatch.delenv("TIDAL_EXPERIMENTS_DIR")
    get_settings.cache_clear()
    assert checkpoint_path("first/best") == folder / "home/experiments/first/checkpoints/step-000000001"
    assert local_generation.newest_checkpoint(policy=False) == folder / "home/experiments/first/mini_v1.pth"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing/final", "no such experiment in"),
        ("nothing.pth", "no such experiment in"),
        ("/nowhere/model.pth", "no such file"),
        ("first/nothing.pth", "its checkpoints: mini_v1.pth"),
        ("out/final", "there is no final checkpoint"),
    ],
)
def test_a_missing_checkpoint_is_an_error_that_lists_the_places(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(NotFoundError, match=expected):
        checkpoint_path(text)


def test_references_and_paths_are_distinguished(folder: Path) -> None:
    assert [is_path(text) for text in ("first/final", "nothing", "out", "out/best")] == [False, False, True, True]


def test_the_printed_lines_load_what_was_written(folder: Path) -> None:
    torch.manual_seed(2)
    config = ModelConfig(vocab_size=61, d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=12)
    model = TransformerLM(config).eval()
    path = folder / "experiments" / "first" / "mini_v1.pth"
    path.unlink()
    save_model(model, path)
    shown = CliRunner().invoke(app, ["export", "first/final", "--format", "safetensors"])
    assert shown.exit_code == 0, shown.output
    assert f"Wrote mini_v1-safetensors/, a language model of {model.num_parameters:,} parameters" in shown.output
    lines = [line.strip() for line in shown.stdout.split("Load the model with:\n")[1].splitlines()]
    assert len(lines) == 2
    script = "; ".join([*lines, "import sys; sys.stdout.write(str(model.num_parameters))"])
    loaded = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert loaded.stdout == str(model.num_parameters), loaded.stderr
    ids = torch.randint(0, 61, (1, 8))
    with torch.no_grad():
        written = load_model(folder / "mini_v1-safetensors" / "mini_v1.safetensors")
        assert torch.equal(written(ids), model(ids))
    again = CliRunner().invoke(app, ["export", "first/final", "--format", "safetensors"])
    assert isinstance(again.exception, ConflictError) and "--force" in again.exception.message


def test_the_childs_error_is_one_sentence(folder: Path) -> None:
    refused = CliRunner().invoke(app, ["export", "first/final", "--format", "hf"])
    assert refused.exit_code == 1
    assert "the file is empty" in str(refused.exception)
    assert not (folder / "mini_v1-hf").exists()
