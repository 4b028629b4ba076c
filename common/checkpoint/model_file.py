"""Loads, saves and migrates a language model in a file or checkpoint folder.

Tidal writes a manifest `<file name>.json` next to each model file. It contains the model's configuration, the file's
SHA-256, whether the gates were trained with modulation, and name, size and digest of the vocabulary. Files of the
original project have no manifest. Their configuration is inferred from the shapes of the tensors, and their gates are
considered untrained. A `.pth` file of an architecture other than the reference also has these entries inside, because
the shapes do not show its architecture. `common.checkpoint.vocabulary_file` handles the vocabulary itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from common.checkpoint.files import (
    METADATA_KEY,
    load_tensors,
    read_metadata,
    safe_load,
    write_object,
    write_tensors,
)
from common.checkpoint.finite import require_finite_state, require_usable
from common.checkpoint.manager import read_checkpoint, read_info
from common.checkpoint.nanochat import from_nanochat, has_nanochat_names
from common.checkpoint.state import (
    DEFAULT_GATE_COLUMN,
    WRAPPER,
    build_model,
    export_legacy_state_dict,
    extract_state_dict,
    infer_config,
    migrate_gates,
)
from common.checkpoint.vocabulary_file import (
    save_vocabulary,
    vocabulary_meta,
    vocabulary_of,
    vocabulary_without_manifest,
)
from common.config.model import ModelConfig
from common.data.vocabulary import VOCABULARY_FILE, Vocabulary
from common.errors import CheckpointError, NotFoundError, StorageError
from common.files import sha256_of, write_atomic, write_json
from common.model import TransformerLM


@dataclass(frozen=True)
class MigrationResult:
    """The result of `migrate_checkpoint`."""

    path: Path
    gates_migrated: int
    """Number of gates that had more than one input."""
    num_parameters: int


def load_model(
    path: str | Path, *, device: torch.device | str = "cpu", gate_column: int = DEFAULT_GATE_COLUMN
) -> TransformerLM:
    """Load the model in `path` as float32 in evaluation mode.

    Reads Tidal's `.safetensors` files, `.pth` files and checkpoint folders, the `model.safetensors` of an exported
    folder, and all forms of the original project's `.pth` files (see `common.checkpoint.state`). If a gate has three
    inputs, only input `gate_column` is kept. Raises NotFoundError if the file does not exist. Raises CheckpointError if
    the file is damaged, is not a language model, contains pickled code, contains weights that are infinite or NaN, or
    lacks its own vocabulary.
    """
    model, _ = _load(Path(path), gate_column)
    return model.to(device)


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Return the vocabulary of the language model in `path`, a model file or a checkpoint folder.

    Only manifests and the vocabulary are read, not the weights, and no hash of weights is checked. A model whose
    manifest names no vocabulary has GPT-2's. Raises NotFoundError and CheckpointError like `load_model`.
    """
    path = Path(path)
    if path.is_dir():
        meta = read_info(path).meta
        _require_language_model(meta, str(path))
        return vocabulary_of(meta, path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such checkpoint file")
    header = read_metadata(path) if path.suffix == ".safetensors" else {}
    meta = _sidecar_content(path) or header
    if "model" not in meta and (path.parent / VOCABULARY_FILE).is_file():
        return load_model(path).vocabulary  # because it depends on the number of the model's entries
    return vocabulary_of(meta, path.parent)


def save_model(model: TransformerLM, path: str | Path) -> Path:
    """Write the model atomically, in the format that the suffix of `path` names, and write its manifest.

    `.safetensors` is Tidal's format; the original project can read `.pth` of the reference architecture.

    A vocabulary other than GPT-2's is written as `tokenizer.json` to the same folder.

    Raises CheckpointError for another suffix, or if the folder has the `tokenizer.json` of another vocabulary,
    DivergedError if the weights are not finite, StorageError if a write fails.
    """
    path = Path(path)
    state = export_legacy_state_dict(model)
    require_finite_state(state)
    meta = model_meta(model.config, model.vocabulary, gates_trained=model.gates_trained)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    sidecar = _sidecar(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise CheckpointError(
            f"{path}: a model file needs the suffix .safetensors or .pth, found {path.suffix or 'none'}"
        )

    def write(temporary: Path) -> None:
        if path.suffix == ".safetensors":
            write_tensors(temporary, state, meta)
        elif model.config.changed_architecture():
            write_object(temporary, {WRAPPER: state, METADATA_KEY: meta})
        else:
            write_object(temporary, state)

    save_vocabulary(model.vocabulary, path.parent)
    # Remove the old manifest first, so that a crash cannot leave it next to weights that it does not describe.
    sidecar.unlink(missing_ok=True)
    write_atomic(path, write, needed_bytes=size)
    manifest = {**meta, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    write_atomic(sidecar, lambda temporary: write_json(temporary, manifest))
    return path


def model_meta(config: ModelConfig, vocabulary: Vocabulary, *, gates_trained: bool) -> dict[str, Any]:
    """Return the entries of a manifest that describe a language model."""
    return {
        "kind": "lm",
        "model": config.model_dump(mode="json"),
        "gates_trained": gates_trained,
        **vocabulary_meta(vocabulary),
    }


def migrate_checkpoint(src: str | Path, dst: str | Path, *, column: int = DEFAULT_GATE_COLUMN) -> MigrationResult:
    """Read the model in `src`, in any format, and write it to `dst` (.pth or .safetensors) with one input per gate.

    Raises StorageError if `dst` already exists.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists():
        raise StorageError(f"{dst}: the file already exists; choose another name or remove it first")
    model, changed = _load(src, column)
    save_model(model, dst)
    return MigrationResult(dst, changed, model.num_parameters)


def _load(path: Path, gate_column: int) -> tuple[TransformerLM, int]:
    where = str(path)
    meta: Mapping[str, Any]
    if path.is_dir():
        loaded, meta = read_checkpoint(path)
        _require_language_model(meta, where)
    elif path.suffix == ".safetensors":
        loaded, header = load_tensors(path)
        meta = _read_sidecar(path) or header
    else:
        loaded = safe_load(path)
        inside = loaded.get(METADATA_KEY) if isinstance(loaded, Mapping) else None
        meta = _read_sidecar(path) or (inside if isinstance(inside, Mapping) else {})
    state, changed = migrate_gates(extract_state_dict(loaded, where), gate_column, where)
    config = _config_of(meta, where)
    if has_nanochat_names(state):
        if config is None or not config.is_nanochat:
            raise CheckpointError(
                f"{where}: the weights have the names of transformers' NanoChat, but the file has no configuration of "
                "such a model that Tidal wrote; load the model file from which it was exported"
            )
        state = from_nanochat(state, config)
    config = config or infer_config(state, where)
    model = build_model(state, config, where)
    require_usable(dict(model.named_parameters()), where)
    model.gates_trained = config.gates and bool(meta.get("gates_trained", False))
    folder = path if path.is_dir() else path.parent
    if "model" in meta:
        model.vocabulary = vocabulary_of(meta, folder)
    else:
        model.vocabulary = vocabulary_without_manifest(folder, config.vocab_size)
    return model, changed


def _require_language_model(meta: Mapping[str, Any], where: str) -> None:
    if meta.get("kind", "lm") != "lm":
        raise CheckpointError(f"{where}: expected a language model, found a checkpoint of kind '{meta['kind']}'")


def _config_of(meta: Mapping[str, Any], where: str) -> ModelConfig | None:
    if "model" not in meta:
        return None
    try:
        return ModelConfig.model_validate(meta["model"])
    except ValidationError as error:
        raise CheckpointError(f"{where}: the manifest's model is invalid: {error.errors()[0]['msg']}") from error


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_sidecar(path: Path) -> dict[str, Any]:
    meta = _sidecar_content(path)
    if meta is None:
        return {}
    if not path.is_file():
        raise NotFoundError(f"{path}: no such checkpoint file")
    if sha256_of(path) != meta.get("sha256"):
        raise CheckpointError(
            f"{path}: its SHA-256 differs from the manifest {_sidecar(path).name}; copy the file again, "
            "or remove the manifest if you replaced the file on purpose"
        )
    return meta


def _sidecar_content(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a model file, or None if there is none."""
    sidecar = _sidecar(path)
    try:
        meta = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{sidecar}: the manifest cannot be read ({error}); remove it or copy it again"
        ) from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{sidecar}: the manifest is not a JSON object; remove it or copy it again")
    return meta
