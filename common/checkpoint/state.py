"""Converts state dicts of language models between the forms of the original project and Tidal's form.

A state dict of the original may be wrapped under `model_state_dict`, have names with torch.compile's prefix
`_orig_mod.`, and have gates with three inputs instead of one, in any combination. The model's configuration is inferred
from the shapes of the tensors, which show only the reference architecture. A file of another architecture therefore
contains its configuration. `common.checkpoint.files` reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from common.checkpoint.files import unshared_cpu_tensors
from common.config.model import ModelConfig
from common.errors import CheckpointError
from common.model import TransformerLM

COMPILED_PREFIX = "_orig_mod."
WRAPPER = "model_state_dict"
DEFAULT_GATE_COLUMN = 2
"""Index of the input that is kept of a gate with three inputs."""
_BLOCK = re.compile(r"^transformer_blocks\.(\d+)\.")


def extract_state_dict(loaded: Any, where: str) -> dict[str, Tensor]:
    """Return the language model's state dict from the content of a file, and remove torch.compile's prefix from names.

    Raises CheckpointError if the file contains no state dict of a language model. `where` is the file's name for error
    messages.
    """
    if isinstance(loaded, Mapping) and WRAPPER in loaded:
        loaded = loaded[WRAPPER]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{where}: expected a state dict, found {type(loaded).__name__}")
    if "agent_state_dict" in loaded or any(str(name).startswith("feature_extractor.") for name in loaded):
        raise CheckpointError(f"{where}: this is a controller (policy) checkpoint, not a language model")
    state = {strip_prefix(str(name)): value for name, value in loaded.items()}
    others = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if others:
        raise CheckpointError(
            f"{where}: not a language model; these entries are not tensors: {_shortened_list(others)}"
        )
    return state


def strip_prefix(name: str) -> str:
    """Return the name without the prefix `_orig_mod.` that torch.compile adds."""
    return name.removeprefix(COMPILED_PREFIX)


def migrate_gates(state: Mapping[str, Tensor], column: int, where: str) -> tuple[dict[str, Tensor], int]:
    """Keep only the input `column` of gates with several inputs. Return the new state and the number of changed gates.

    Raises CheckpointError if a gate with several inputs has no input `column`.
    """
    migrated, changed = dict(state), 0
    for name, tensor in state.items():
        if name.endswith("_gate.net.0.weight") and tensor.dim() == 2 and tensor.shape[1] > 1:
            if not 0 <= column < tensor.shape[1]:
                raise CheckpointError(
                    f"{where}: {name} has {tensor.shape[1]} gate inputs; choose one from 0 to {tensor.shape[1] - 1}, "
                    f"not {column}"
                )
            migrated[name] = tensor[:, column : column + 1].clone()
            changed += 1
    return migrated, changed


def infer_config(state: Mapping[str, Tensor], where: str, **known: Any) -> ModelConfig:
    """Infer the configuration from the shapes of the tensors; fields in `known` replace inferred ones.

    The token embedding gives the size of the vocabulary and the model width D. rope_cos gives the context length and
    the head width, and the number of heads is D / head width. ffn.0 gives the width of the feed-forward layer. Dropout
    and the rotary base do not affect shapes, so the configuration has their defaults; this does not matter for the
    rotary tables, which are read from the file. The architecture is the reference. Raises CheckpointError if the shapes
    are not those of a valid model.
    """
    block = "transformer_blocks.0."
    absent = [each for each in ("q_proj.bias", "ln1.weight", "attn_gate.net.0.weight") if block + each not in state]
    if absent and block + "q_proj.weight" in state:
        raise CheckpointError(
            f"{where}: not the reference architecture, because {block}{absent[0]} is missing; its configuration cannot "
            "be inferred, so keep the manifest (<file name>.json) next to the file"
        )
    blocks = {int(match[1]) for match in map(_BLOCK.match, state) if match}
    shapes: dict[str, tuple[int, int]] = {}
    for name in (
        "token_embeddings.weight",
        "rope_cos",
        "transformer_blocks.0.ffn.0.weight",
        "transformer_blocks.0.attn_gate.net.0.weight",
    ):
        if name not in state or state[name].dim() != 2:
            raise CheckpointError(f"{where}: not a Tidal language model; {name} is missing or not a matrix")
        rows, columns = state[name].shape
        shapes[name] = (rows, columns)
    vocab_size, d_model = shapes["token_embeddings.weight"]
    context_length, head_dim = shapes["rope_cos"]
    if head_dim == 0 or d_model % head_dim:
        raise CheckpointError(f"{where}: head width {head_dim} of rope_cos does not divide the model width {d_model}")
    values = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "num_layers": max(blocks) + 1,
        "num_heads": d_model // head_dim,
        "ffn_dim": shapes["transformer_blocks.0.ffn.0.weight"][0],
        "context_length": context_length,
        "gate_hidden_dim": shapes["transformer_blocks.0.attn_gate.net.0.weight"][0],
    }
    try:
        return ModelConfig.model_validate({**values, **known})
    except ValidationError as error:
        raise CheckpointError(
            f"{where}: its shapes are not those of a valid model: {error.errors()[0]['msg']}"
        ) from error


def build_model(state: Mapping[str, Tensor], config: ModelConfig, where: str) -> TransformerLM:
    """Return a model with the tensors in `state` as float32, in evaluation mode.

    Raises CheckpointError if names or shapes of the tensors do not match `config`.
    """
    with torch.device("meta"):
        model = TransformerLM(config)
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    findings = [f"missing {_shortened_list(missing)}"] * bool(missing) + [
        f"unknown {_shortened_list(unexpected)}"
    ] * bool(unexpected)
    findings += [_shortened_list(wrong)] * bool(wrong)
    if findings:
        raise CheckpointError(f"{where}: does not match the model's configuration: {'; '.join(findings)}")
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def export_legacy_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return a state dict that the original project loads with strict=True.

    The tensors are float32 and on the CPU, and include the rotary tables.
    """
    state = {strip_prefix(name): tensor.float() for name, tensor in model.state_dict().items()}
    return {name: tensor.clone() for name, tensor in unshared_cpu_tensors(state).items()}


def _shortened_list(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
