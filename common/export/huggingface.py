"""Writes a language model as a folder for `transformers`: weights, configuration, tokeniser, remote code, model card.

Writing does not need transformers, because the files are JSON and safetensors. A model whose architecture transformers
has (NanoChat) is written with the names of that architecture and without code. Other models keep their names and get
the code `modeling_tidal.py`. `load_model` can read the folder's `model.safetensors` as well. The folder contains no
controller, and its code does not derive decoding parameters from the modulation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.checkpoint import export_legacy_state_dict
from common.checkpoint.files import write_tensors
from common.checkpoint.model_file import model_meta
from common.checkpoint.nanochat import to_nanochat
from common.config.model import ARCHITECTURE
from common.data.gpt2_files import vocabulary_files
from common.data.vocabulary import VOCABULARY_FILE, Vocabulary
from common.datasets.reading import END_OF_TEXT
from common.export import model_card
from common.files import write_text
from common.model import TransformerLM
from common.model.norm import LAYER_NORM_EPS, RMS_NORM_EPS
from tidal_client.wire.sampling import DEFAULTS

CODE = "modeling_tidal"


def write_model_folder(
    model: TransformerLM, folder: Path, *, origin: str, evaluation: Mapping[str, Any] | None = None
) -> list[str]:
    """Write all files into the empty `folder` and return remarks for the user. Raises OSError if a write fails."""
    meta = model_meta(model.config, model.vocabulary, gates_trained=model.gates_trained)
    weights = export_legacy_state_dict(model)
    if model.config.is_nanochat:
        weights = to_nanochat(weights, model.config)
    else:
        write_text(folder / f"{CODE}.py", Path(__file__).with_name(f"{CODE}.py").read_text(encoding="utf-8"))
    write_tensors(folder / "model.safetensors", weights, meta)
    has_tokenizer = _end_of_text_id(model) is not None
    _write_json(folder / "config.json", transformers_config(model))
    _write_json(folder / "generation_config.json", generation_config(_end_of_text_id(model)))
    write_text(folder / "README.md", model_card.model_card_text(model, origin, evaluation, has_tokenizer=has_tokenizer))
    if not has_tokenizer:
        return [
            f"no tokeniser files are included, because the model's vocabulary of {model.config.vocab_size} is smaller "
            f"than GPT-2's {model.vocabulary.size}"
        ]
    write_tokenizer(folder, model.vocabulary, model.config.context_length)
    return []


def transformers_config(model: TransformerLM) -> dict[str, Any]:
    """Return the content of `config.json`, with transformers' names where they exist."""
    c = model.config
    end_of_text = _end_of_text_id(model)
    return {
        **(_nanochat_fields(model) if c.is_nanochat else _tidal_fields(model)),
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "intermediate_size": c.ffn_dim,
        "max_position_embeddings": c.context_length,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "tokenizer_class": _tokenizer_class(model.vocabulary) if end_of_text is not None else None,
    }


def _nanochat_fields(model: TransformerLM) -> dict[str, Any]:
    c = model.config
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "num_key_value_heads": c.num_heads,
        "hidden_act": "relu2",
        "attention_bias": False,
        "attention_dropout": c.dropout,
        "rms_norm_eps": RMS_NORM_EPS,
        "final_logit_softcapping": c.logit_softcap,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "initializer_range": 0.02,
    }


def _tidal_fields(model: TransformerLM) -> dict[str, Any]:
    c = model.config
    return {
        "architectures": ["TidalForCausalLM"],
        "auto_map": {"AutoConfig": f"{CODE}.TidalConfig", "AutoModelForCausalLM": f"{CODE}.TidalForCausalLM"},
        "model_type": "tidal",
        "gate_dim": c.gate_dim,
        "gate_hidden_dim": c.gate_hidden_dim,
        "dropout": c.dropout,
        "rope_theta": c.rope_theta,
        "layer_norm_eps": LAYER_NORM_EPS,
        "rms_norm_eps": RMS_NORM_EPS,
        **{name: getattr(c, name) for name in ARCHITECTURE},
        "gates_trained": model.gates_trained,
    }


def generation_config(end_of_text: int | None) -> dict[str, Any]:
    """Return the content of `generation_config.json`: the defaults of Tidal's API and the id of `<|endoftext|>`."""
    special_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {
        **dict.fromkeys(special_ids, end_of_text),
        "do_sample": True,
        "temperature": DEFAULTS.temperature,
        "top_k": DEFAULTS.top_k,
        "repetition_penalty": DEFAULTS.repetition_penalty,
    }


def write_tokenizer(folder: Path, vocabulary: Vocabulary, context_length: int) -> None:
    """Write the model's byte-level BPE and its configuration.

    For GPT-2's vocabulary, these are OpenAI's two files under transformers' names; for any other, `tokenizer.json`.
    """
    if vocabulary.is_gpt2:
        merges, entries = (path.read_text(encoding="utf-8") for path in vocabulary_files())
        write_text(folder / "vocab.json", entries)
        write_text(folder / "merges.txt", merges)
    else:
        write_text(folder / VOCABULARY_FILE, vocabulary.to_json())
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END_OF_TEXT)
    _write_json(folder / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": _tokenizer_class(vocabulary),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "padding_side": "left",  # because new tokens follow the last position of a row
    }
    _write_json(folder / "tokenizer_config.json", {**settings, **special})


def _end_of_text_id(model: TransformerLM) -> int | None:
    """Return the id of `<|endoftext|>`, or None if the model has fewer entries than its vocabulary, GPT-2's."""
    vocabulary = model.vocabulary
    return vocabulary.end_of_text_id if model.config.vocab_size >= vocabulary.size else None


def _tokenizer_class(vocabulary: Vocabulary) -> str:
    """Return transformers' name of the class that reads the files of `write_tokenizer`."""
    return "GPT2Tokenizer" if vocabulary.is_gpt2 else "PreTrainedTokenizerFast"


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
