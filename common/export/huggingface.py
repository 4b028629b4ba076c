"""Writes a language model as a folder for `transformers`: weights, configuration, tokeniser, remote code, model card.

Writing does not need transformers, because the files are JSON and safetensors. The weights keep their names, so
`load_model` can read the folder's `model.safetensors` as well. The folder contains no controller, and its code does not
derive decoding parameters from the modulation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.checkpoint import export_legacy_state_dict
from common.checkpoint.files import write_tensors
from common.checkpoint.model_file import model_meta
from common.config.tokenizers import GPT2_SIZE
from common.data.gpt2_files import vocabulary_files
from common.datasets.reading import END_OF_TEXT
from common.export import model_card
from common.files import write_text
from common.model import TransformerLM
from tidal_client.wire.sampling import DEFAULTS

CODE = "modeling_tidal"


def write_model_folder(
    model: TransformerLM, folder: Path, *, origin: str, evaluation: Mapping[str, Any] | None = None
) -> list[str]:
    """Write all files into the empty `folder` and return remarks for the user. Raises OSError if a write fails."""
    meta = model_meta(model.config, model.vocabulary, gates_trained=model.gates_trained)
    write_tensors(folder / "model.safetensors", export_legacy_state_dict(model), meta)
    has_tokenizer = model.config.vocab_size >= GPT2_SIZE
    _write_json(folder / "config.json", transformers_config(model))
    _write_json(folder / "generation_config.json", generation_config(has_tokenizer))
    write_text(folder / f"{CODE}.py", Path(__file__).with_name(f"{CODE}.py").read_text(encoding="utf-8"))
    write_text(folder / "README.md", model_card.model_card_text(model, origin, evaluation, has_tokenizer=has_tokenizer))
    if not has_tokenizer:
        return [
            f"no tokeniser files are included, because the model's vocabulary of {model.config.vocab_size} is smaller "
            f"than GPT-2's {GPT2_SIZE}"
        ]
    write_tokenizer(folder, model.config.context_length)
    return []


def transformers_config(model: TransformerLM) -> dict[str, Any]:
    """Return the content of `config.json`, with transformers' names where they exist."""
    c = model.config
    end_of_text = GPT2_SIZE - 1 if c.vocab_size >= GPT2_SIZE else None
    return {
        "architectures": ["TidalForCausalLM"],
        "auto_map": {"AutoConfig": f"{CODE}.TidalConfig", "AutoModelForCausalLM": f"{CODE}.TidalForCausalLM"},
        "model_type": "tidal",
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "intermediate_size": c.ffn_dim,
        "max_position_embeddings": c.context_length,
        "gate_dim": c.gate_dim,
        "gate_hidden_dim": c.gate_hidden_dim,
        "dropout": c.dropout,
        "rope_theta": c.rope_theta,
        "layer_norm_eps": 1e-5,
        "gates_trained": model.gates_trained,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "tokenizer_class": "GPT2Tokenizer" if end_of_text is not None else None,
    }


def generation_config(has_tokenizer: bool) -> dict[str, Any]:
    """Return the content of `generation_config.json`: the defaults of Tidal's API."""
    special_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {
        **dict.fromkeys(special_ids, GPT2_SIZE - 1 if has_tokenizer else None),
        "do_sample": True,
        "temperature": DEFAULTS.temperature,
        "top_k": DEFAULTS.top_k,
        "repetition_penalty": DEFAULTS.repetition_penalty,
    }


def write_tokenizer(folder: Path, context_length: int) -> None:
    """Write GPT-2's byte-level BPE: OpenAI's two files under transformers' names, and their configuration."""
    merges, vocabulary = (path.read_text(encoding="utf-8") for path in vocabulary_files())
    write_text(folder / "vocab.json", vocabulary)
    write_text(folder / "merges.txt", merges)
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END_OF_TEXT)
    _write_json(folder / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "padding_side": "left",  # because new tokens follow the last position of a row
    }
    _write_json(folder / "tokenizer_config.json", {**settings, **special})


def read_evaluation(experiment: Path, stem: str) -> Mapping[str, Any] | None:
    """Return the experiment's evaluation results if they belong to the model file with this stem, otherwise None."""
    try:
        results = json.loads(
            (experiment / "evaluation_results" / "evaluation_results.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and Path(str(results.get("model"))).stem == stem else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
