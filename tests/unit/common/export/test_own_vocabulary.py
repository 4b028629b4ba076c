"""Exports of a model with its own vocabulary contain it, and transformers gives the same ids and logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager, load_model, load_vocabulary
from common.checkpoint.model_file import model_meta
from common.errors import CheckpointError
from common.export import ExportFormat, export_checkpoint
from common.generation import GenerationSettings, generate_batch
from common.model import TransformerLM
from tests.own_vocabulary import forbid_gpt2, own_model, own_vocabulary

TEXTS = ["Once upon a time, a cat.", "  two  spaces\n\n\tand a tab", "naïve café — 猫 🙂", "don't I'll 12345", ""]
SCRIPT = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = [tokenizer(text)["input_ids"] for text in texts]
batch = tokenizer(texts[:2], return_tensors="pt", padding=True)
with torch.no_grad():
    logits = model(torch.tensor([ids[0]])).logits[0].tolist()
    made = model.generate(**batch, max_new_tokens=8, do_sample=False, repetition_penalty=1.0)
model.save_pretrained(f"{folder}-again")
tokenizer.save_pretrained(f"{folder}-again")
print(json.dumps({
    "ids": ids, "decoded": [tokenizer.decode(each) for each in ids], "logits": logits,
    "made": made[:, -8:].tolist(), "batch": {name: value.tolist() for name, value in batch.items()},
    "special": [tokenizer.eos_token_id, tokenizer.pad_token_id, model.config.eos_token_id, len(tokenizer)],
    "length": tokenizer.model_max_length, "marked": tokenizer("a<|endoftext|>")["input_ids"],
    "tidal": [name for name in sys.modules if name.split(".")[0] in ("common", "services", "tidal_client")],
}))
"""


@pytest.fixture(scope="module")
def model() -> TransformerLM:
    return own_model(own_vocabulary())


@pytest.fixture
def source(model: TransformerLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkpoint of the model in an experiment. GPT-2's files cannot be read."""
    forbid_gpt2(monkeypatch)
    manager = CheckpointManager(tmp_path / "exp-1" / "checkpoints", keep_last=1)
    meta = model_meta(model.config, model.vocabulary, gates_trained=True)
    return manager.save(7, model.state_dict(), {"step": 7}, meta=meta, vocabulary=model.vocabulary).path


@pytest.mark.parametrize("form", list(ExportFormat))
def test_every_form_contains_the_vocabulary_and_loads_with_it(
    source: Path, model: TransformerLM, form: ExportFormat, tmp_path: Path
) -> None:
    done = export_checkpoint(source, form, tmp_path / "out")
    assert done.remarks == []
    [weights] = [tmp_path / "out" / name for name, _ in done.files if name.endswith((".safetensors", ".pth"))]
    assert (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8") == model.vocabulary.to_json()
    loaded = load_model(weights)
    assert loaded.vocabulary.digest == load_vocabulary(weights).digest == model.vocabulary.digest
    again = export_checkpoint(weights, ExportFormat.PTH, tmp_path / "again")
    assert "tokenizer.json" in dict(again.files)
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="the model needs its own vocabulary train:400"):
        load_model(weights)


def test_transformers_gives_the_same_ids_logits_and_texts(source: Path, model: TransformerLM, tmp_path: Path) -> None:
    folder = export_checkpoint(source, ExportFormat.HF, tmp_path / "exported").folder
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HOME": str(elsewhere / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(TEXTS)],
        cwd=elsewhere,
        env={**environment, **offline},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    encoding = model.vocabulary.encoding
    ours = [encoding.encode_ordinary(text) for text in TEXTS]
    assert found["ids"] == ours
    assert found["decoded"] == TEXTS
    assert found["special"] == [399, 399, 399, 400]
    assert found["length"] == 64 and found["tidal"] == []
    assert found["marked"] == encoding.encode("a<|endoftext|>", allowed_special="all")
    with torch.no_grad():
        logits = model(torch.tensor(ours[:1]))[0]
    assert float((torch.tensor(found["logits"]) - logits).abs().max()) <= 1e-4
    longest = max(len(ids) for ids in ours[:2])
    assert found["batch"]["input_ids"] == [[399] * (longest - len(ids)) + ids for ids in ours[:2]]
    plain = generate_batch(model, ours[:2], GenerationSettings(max_tokens=8, top_k=1, repetition_penalty=1.0))
    assert found["made"] == [each.token_ids for each in plain]
    again = Path(f"{folder}-again") / "model.safetensors"
    assert load_model(again).vocabulary.digest == load_vocabulary(again).digest == model.vocabulary.digest
    (again.parent / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a byte-level BPE of 400 entries"):
        load_model(again)


def test_the_card_and_the_configuration_name_the_vocabulary(source: Path, model: TransformerLM, tmp_path: Path) -> None:
    folder = export_checkpoint(source, ExportFormat.HF, tmp_path / "exported").folder
    assert f"| vocabulary | 400 (byte-level BPE that was trained on the model's own text, `{model.vocabulary}`) |" in (
        folder / "README.md"
    ).read_text(encoding="utf-8")
    assert not (folder / "vocab.json").exists()
    for name in ("config.json", "tokenizer_config.json"):
        assert json.loads((folder / name).read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == generation["pad_token_id"] == 399
