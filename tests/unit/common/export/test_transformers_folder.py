"""In a process without Tidal, transformers loads an exported folder and computes the same results as Tidal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from common.checkpoint import load_model, save_model
from common.config import ModulationConfig, Range
from common.data import load_tokenizer
from common.export import ExportFormat, export_checkpoint
from common.generation import GenerationSettings, generate_batch
from common.model import TransformerLM
from tests.unit.common.export.models import model_of

LENGTHS = [12, 7, 3]
TEXTS = ["Once upon a time, a cat.", "  two  spaces\n\n\tand a tab", "naïve café — 猫 🙂", "don't I'll 12345", ""]
M = torch.tensor([[0.1], [0.5], [0.95]])
GREEDY_MAP = ModulationConfig(
    base_repetition_penalty=1.0, repetition_penalty=Range(low=1.0, high=1.0), top_k=Range(low=1, high=1)
)


@pytest.fixture(scope="module")
def model() -> TransformerLM:
    return model_of()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 50256, (3, 12), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def folder(model: TransformerLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    save_model(model, place / "mini.safetensors")
    return export_checkpoint(place / "mini.safetensors", ExportFormat.HF, place / "exported").folder


@pytest.fixture(scope="module")
def found(folder: Path, ids: torch.Tensor) -> dict[str, Any]:
    """Return the results of transformers for the folder."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    torch.save({"ids": ids, "m": M, "lengths": LENGTHS, "texts": TEXTS}, elsewhere / "inputs.pt")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HOME": str(elsewhere / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("in_transformers.py")
    ran = subprocess.run(
        [sys.executable, str(script), str(folder), "inputs.pt", "results.pt"],
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
def test_logits_are_ours_with_and_without_modulation(
    found: dict[str, Any], model: TransformerLM, ids: torch.Tensor
) -> None:
    assert close(found["plain"], model(ids)) and close(found["gated"], model(ids, M))
    assert close(found["one number"], model(ids, torch.full((3, 1), 0.25)))
    assert close(found["hidden"], model.hidden_states(ids))
    assert not close(found["plain"], found["gated"])
    assert found["training"] is False and found["tidal modules"] == []


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(found: dict[str, Any], model: TransformerLM, ids: torch.Tensor, side: str) -> None:
    for row, length in enumerate(LENGTHS):
        kept = slice(12 - length, None) if side == "left" else slice(0, length)
        alone = ids[row : row + 1, :length]
        assert close(found[f"{side} plain"][row, kept], model(alone)[0])
        assert close(found[f"{side} gated"][row, kept], model(alone, M[row : row + 1])[0])
    assert torch.isfinite(found[f"{side} plain"]).all()


@torch.no_grad()
def test_the_kv_cache_does_not_change_the_results(
    found: dict[str, Any], model: TransformerLM, ids: torch.Tensor
) -> None:
    assert close(found["in parts"], model(ids, M)[:, 5:])
    assert torch.equal(found["greedy"], found["greedy without cache"])


def test_greedy_texts_are_those_of_our_engine(found: dict[str, Any], model: TransformerLM, ids: torch.Tensor) -> None:
    prompts = [ids[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    plain = generate_batch(model, prompts, GenerationSettings(max_tokens=12, top_k=1, repetition_penalty=1.0))
    assert found["greedy"].tolist() == [each.token_ids for each in plain]
    for row, prompt in enumerate(prompts):
        settings = GenerationSettings(
            max_tokens=12, gating_mode="fixed", modulation=float(M[row]), modulation_config=GREEDY_MAP
        )
        (gated,) = generate_batch(model, [prompt], settings)
        assert gated.effective.gates_fed
        assert found["greedy gated"][row].tolist() == gated.token_ids
    assert not torch.equal(found["greedy"], found["greedy gated"])
    assert found["several"].shape == (9, 14)


@torch.no_grad()
def test_the_loss_is_that_of_the_next_token(found: dict[str, Any], model: TransformerLM, ids: torch.Tensor) -> None:
    logits = model(ids)
    pairs = [(logits[b, t], ids[b, t + 1]) for b in range(3) for t in range(11) if b > 0 or t >= 3]
    expected = cross_entropy(torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]))
    assert abs(float(found["loss"]) - float(expected)) < 1e-4
    assert float(found["gradient"]) > 0


def test_the_tokeniser_is_gpt_2s(found: dict[str, Any]) -> None:
    ours = load_tokenizer()
    assert found["texts"] == [ours.encode_ordinary(text) for text in TEXTS]
    assert found["decoded"] == TEXTS
    assert found["batch"]["input_ids"][0] == [50256, 50256, *ours.encode_ordinary("The cat")]
    assert found["batch"]["attention_mask"][0] == [0, 0, 1, 1]
    assert found["length"] == 40


def test_a_model_saved_again_is_unchanged(
    found: dict[str, Any], model: TransformerLM, ids: torch.Tensor, folder: Path
) -> None:
    assert torch.equal(found["again"], found["plain"])
    for copy in (folder, Path(f"{folder}-again")):
        assert (copy / "modeling_tidal.py").is_file()
        with torch.no_grad():
            assert close(load_model(copy / "model.safetensors")(ids, M), model(ids, M))
    assert load_model(folder / "model.safetensors").gates_trained


def test_narrow_weights_keep_exact_angles(found: dict[str, Any], model: TransformerLM) -> None:
    assert torch.equal(found["bfloat16 tables"], model.rope_cos)
    spread = float(found["plain"].std())
    assert float((found["bfloat16"].float() - found["plain"]).abs().max()) < 0.2 * spread


def test_impossible_exports_are_refused_with_a_reason(found: dict[str, Any]) -> None:
    assert "41 tokens do not fit into the model's context of 40" in found["too long"]
    assert "modulation has shape (5, 1)" in found["two shapes"]
    assert "use_cache=True" in found["no cache"]


def test_the_card_explains_how_to_use_the_model(folder: Path, model: TransformerLM) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"| parameters | {model.num_parameters:,} |" in card
    assert 'AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)' in card
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_vocabulary_that_is_not_gpt_2s_gets_no_tokeniser(tmp_path: Path) -> None:
    save_model(model_of(vocab_size=61), tmp_path / "small.pth")
    done = export_checkpoint(tmp_path / "small.pth", ExportFormat.HF, tmp_path / "out")
    assert "vocabulary of 61" in done.remarks[0]
    assert not (tmp_path / "out" / "vocab.json").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] is None
