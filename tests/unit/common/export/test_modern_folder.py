"""transformers loads a modern model without gates as NanoChat, without code of ours, and computes our results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import load_model, save_model
from common.config.model import NANOCHAT
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.errors import CheckpointError, InvalidInputError
from common.export import ExportFormat, export_checkpoint
from common.generation import GenerationSettings, generate_batch
from common.model import TransformerLM
from tests.unit.common.export.models import model_of

LENGTHS = [12, 7, 3]
TEXTS = ["Once upon a time, a cat.", "naïve café — 猫"]
M = torch.tensor([[0.1], [0.5], [0.95]])
GATED = {name: value for name, value in NANOCHAT.items() if name != "gates"}
SOFTCAP = 4.0


@pytest.fixture(scope="module")
def gated() -> TransformerLM:
    """Return a modern model with gates."""
    return model_of(**GATED, logit_softcap=SOFTCAP, rope_theta=500.0)


@pytest.fixture(scope="module")
def plain(gated: TransformerLM) -> TransformerLM:
    return gated.without_gates()


@pytest.fixture(scope="module")
def folders(gated: TransformerLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder without gates and the folder with gates, both exported from one model."""
    place = tmp_path_factory.mktemp("modern")
    save_model(gated, place / "mini.safetensors")
    nanochat = export_checkpoint(place / "mini.safetensors", ExportFormat.HF, place / "nanochat", gates=False)
    assert nanochat.load[-1] == f"model = AutoModelForCausalLM.from_pretrained({str(nanochat.folder)!r})"
    tidal = export_checkpoint(place / "mini.safetensors", ExportFormat.HF, place / "tidal")
    return nanochat.folder, tidal.folder


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 50256, (3, 12), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path], ids: torch.Tensor) -> dict[str, Any]:
    """Return the results of transformers for both folders."""
    elsewhere = folders[0].parent / "elsewhere"
    elsewhere.mkdir()
    torch.save({"ids": ids, "m": M, "lengths": LENGTHS, "texts": TEXTS}, elsewhere / "inputs.pt")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HOME": str(elsewhere / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("modern_in_transformers.py")
    ran = subprocess.run(
        [sys.executable, str(script), *map(str, folders), "inputs.pt", "results.pt"],
        cwd=elsewhere,
        env={**environment, **offline},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    results: dict[str, Any] = torch.load(elsewhere / "results.pt")
    return results


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool((left - right).abs().max() <= 1e-4)


@torch.no_grad()
def test_nanochats_logits_are_ours(found: dict[str, Any], plain: TransformerLM, ids: torch.Tensor) -> None:
    assert (found["class"], found["code"], found["tidal modules"]) == ("NanoChatForCausalLM", [], [])
    expected = plain(ids)
    assert close(found["plain"], expected) and close(found["again"], expected)
    assert close(found["in parts"], expected[:, 5:])
    for row, length in enumerate(LENGTHS):
        assert close(found["padded"][row, 12 - length :], plain(ids[row : row + 1, :length])[0])
    assert SOFTCAP / 2 < float(expected.abs().max()) < SOFTCAP


def test_nanochats_greedy_texts_are_those_of_our_engine(
    found: dict[str, Any], plain: TransformerLM, ids: torch.Tensor
) -> None:
    prompts = [ids[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    ours = generate_batch(plain, prompts, GenerationSettings(max_tokens=12, top_k=1, repetition_penalty=1.0))
    assert found["greedy"].tolist() == [each.token_ids for each in ours]
    assert torch.equal(found["greedy"], found["greedy without cache"])
    assert found["texts"] == [load_tokenizer().encode_ordinary(text) for text in TEXTS]


@torch.no_grad()
def test_with_gates_the_code_of_the_folder_computes_our_results(
    found: dict[str, Any], gated: TransformerLM, ids: torch.Tensor
) -> None:
    assert close(found["tidal plain"], gated(ids)) and close(found["tidal gated"], gated(ids, M))
    assert close(found["tidal in parts"], gated(ids, M)[:, 5:])
    assert not close(found["tidal plain"], found["tidal gated"])


@torch.no_grad()
def test_the_exported_weights_are_read_again(
    folders: tuple[Path, Path], plain: TransformerLM, ids: torch.Tensor, found: dict[str, Any]
) -> None:
    loaded = load_model(folders[0] / "model.safetensors")
    assert loaded.config == plain.config and not loaded.gates_trained
    assert torch.equal(loaded(ids), plain(ids))
    assert found["class"]  # transformers has written the folder that ends in -again, without our header
    with pytest.raises(CheckpointError, match="no configuration of such a model"):
        load_model(Path(f"{folders[0]}-again") / "model.safetensors")


def test_the_cards_name_what_each_folder_needs(folders: tuple[Path, Path], plain: TransformerLM) -> None:
    nanochat, tidal = ((folder / "README.md").read_text() for folder in folders)
    assert "trust_remote_code" not in nanochat and "NanoChat of transformers" in nanochat
    assert "This model has no gates" in nanochat and "transformers does not check this" in nanochat
    assert f"| parameters | {plain.num_parameters:,} |" in nanochat
    assert "| architecture | `norm` rmsnorm, `embedding_norm`, `qk_norm`, `activation` relu2, no `bias`" in nanochat
    assert tidal.count("trust_remote_code") == 3 and "raises an error" in tidal
    config = json.loads((folders[0] / "config.json").read_text())
    assert config["final_logit_softcapping"] == SOFTCAP and "auto_map" not in config


def test_gates_can_be_left_out_of_every_format_of_a_model(tmp_path: Path) -> None:
    model = model_of(vocab_size=61)
    source = save_model(model, tmp_path / "mini.safetensors")
    ids = torch.randint(0, 61, (2, 9))
    for form in ExportFormat:
        done = export_checkpoint(source, form, tmp_path / form, gates=False)
        [weights] = [tmp_path / form / name for name, _ in done.files if Path(name).suffix in (".safetensors", ".pth")]
        with torch.no_grad():
            assert torch.equal(load_model(weights)(ids), model(ids))
        assert ("original Tidal cannot load" in "".join(done.remarks)) == (form is ExportFormat.PTH)
    torch.save(GatingPolicy().state_dict(), tmp_path / "policy.pth")
    with pytest.raises(InvalidInputError, match="has no gates"):
        export_checkpoint(tmp_path / "policy.pth", ExportFormat.PTH, tmp_path / "policy", gates=False)


def test_a_raw_file_of_a_modern_model_contains_its_architecture(tmp_path: Path) -> None:
    """The shapes of the tensors do not show the architecture, so a file without its manifest would be misread."""
    ids = torch.randint(0, 61, (2, 9))
    for options in (GATED, NANOCHAT, {"qk_norm": True}):
        model = model_of(vocab_size=61, **options)
        path = save_model(model, tmp_path / "mini.pth")
        (tmp_path / "mini.pth.json").unlink()
        loaded = load_model(path)
        assert loaded.config == model.config and loaded.gates_trained == model.config.gates
        with torch.no_grad():
            assert torch.equal(loaded(ids), model(ids))
    torch.save(model_of(vocab_size=61, **NANOCHAT).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"q_proj\.bias is missing; its configuration cannot be inferred"):
        load_model(tmp_path / "bare.pth")
