"""Exports one checkpoint to one folder in a requested format: `export_checkpoint(source, form, folder)`.

    safetensors  <name>.safetensors with its configuration in the header and in <name>.safetensors.json
    pth          <name>.pth, which the original loads with strict=True if it has the reference architecture; its
                 configuration in <name>.pth.json
    hf           a model folder for transformers (`huggingface`); language models only

With `gates=False`, the gates of a language model are left out. The exported model computes what the model computes
without modulation.

A vocabulary other than GPT-2's is part of every export of a language model, as `tokenizer.json`.

The source can be any file that `load_model` or `load_policy_file` reads. The CLI resolves references to checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.checkpoint import load_model, load_policy_file, save_model
from common.checkpoint.files import load_tensors, safe_load
from common.checkpoint.manager import MANIFEST, read_info
from common.errors import InvalidInputError, NotFoundError
from common.export import huggingface, policy
from common.export.folder import require_writable_target, write_folder

SPARE_BYTES = 8_000_000
"""Number of bytes on disk that are needed for files other than weights: tokeniser and configuration."""

Progress = Callable[[str], None]


class ExportFormat(StrEnum):
    """The format of an export."""

    SAFETENSORS = "safetensors"
    PTH = "pth"
    HF = "hf"


@dataclass(frozen=True)
class ExportResult:
    """The result of an export."""

    folder: Path
    files: list[tuple[str, int]]
    """Names and sizes in bytes of all files, except the list of files itself."""
    kind: str
    """Either "lm" (language model) or "rl" (controller)."""
    parameters: int
    """Number of parameters."""
    load: list[str]
    """Lines of Python code that load the export."""
    remarks: list[str] = field(default_factory=list)
    """Messages for the user, such as what the export omits."""


def export_checkpoint(
    source: Path,
    form: ExportFormat,
    folder: Path,
    *,
    gates: bool = True,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> ExportResult:
    """Write the model or controller in `source` to `folder` atomically.

    `folder` must be new or empty; with `force` it may also be a folder that contains only an older export. Raises
    NotFoundError and CheckpointError for the source, ConflictError and InvalidInputError for the folder,
    InvalidInputError for a controller in the format hf or with `gates` False, StorageError if a file cannot be written.
    """
    folder = folder.absolute()
    require_writable_target(folder, source, force=force)
    progress(f"reading {source.name}")
    name = export_name(source)
    if is_policy(source):
        if not gates:
            raise InvalidInputError(f"{source.name} is a controller, which has no gates; leave out --without-gates")
        return _export_policy(source, form, folder, name, force, progress)
    return _export_model(source, form, folder, name, gates, force, progress)


def export_name(source: Path) -> str:
    """Return the stem of the exported files: the stem of the source file, or the name of the checkpoint folder."""
    return source.name if source.is_dir() else source.name.removesuffix(".safetensors").removesuffix(".pth")


def is_policy(source: Path) -> bool:
    """Return whether the source is a controller.

    Raises NotFoundError if it does not exist, CheckpointError if it is not a checkpoint.
    """
    if source.is_dir():
        return read_info(source).meta.get("kind") == "rl"
    if not source.is_file():
        raise NotFoundError(f"{source}: no such checkpoint file")
    if source.suffix == ".safetensors":
        tensors, meta = load_tensors(source)
        return meta.get("kind") == "rl" or policy.is_agent(tensors)
    loaded = safe_load(source)
    return isinstance(loaded, Mapping) and policy.is_agent(loaded)


def _export_model(
    source: Path, form: ExportFormat, folder: Path, name: str, gates: bool, force: bool, progress: Progress
) -> ExportResult:
    model = load_model(source)
    if not gates:
        model = model.without_gates()
    size = sum(tensor.numel() * 4 for tensor in model.state_dict().values())
    remarks: list[str] = []
    changed = ", ".join(model.config.changed_architecture())
    if form is ExportFormat.PTH and changed:
        remarks.append(f"the original Tidal cannot load this model, because its architecture differs in {changed}")

    def fill(target: Path) -> None:
        progress(f"writing {size / 1e6:.0f} MB")
        if form is ExportFormat.HF:
            remarks.extend(
                huggingface.write_model_folder(model, target, origin=origin(source), evaluation=find_evaluation(source))
            )
        else:
            save_model(model, target / f"{name}.{form}")

    files = write_folder(folder, fill, source=source, needed_bytes=size + SPARE_BYTES, force=force)
    lines = _load_model_lines(form, folder, name, code=not model.config.is_nanochat)
    return ExportResult(folder, files, "lm", model.num_parameters, lines, remarks)


def _export_policy(
    source: Path, form: ExportFormat, folder: Path, name: str, force: bool, progress: Progress
) -> ExportResult:
    if form is ExportFormat.HF:
        raise InvalidInputError(
            f"{source.name} is a controller, which transformers cannot load; use --format safetensors or pth"
        )
    content: dict[str, Any] = policy.policy_content(source)
    path = folder / f"{name}.{form}"

    def fill(target: Path) -> None:
        progress("writing the controller")
        policy.write_policy_file(content, target / path.name)

    files = write_folder(folder, fill, source=source, needed_bytes=SPARE_BYTES, force=force)
    parameters = sum(tensor.numel() for tensor in load_policy_file(path)["agent_state_dict"].values())
    load = ["from common.controller import load_policy", f"policy = load_policy({str(path)!r})"]
    if form is ExportFormat.PTH:
        load = ["import torch", f'agent = torch.load({str(path)!r}, weights_only=True)["agent_state_dict"]']
    return ExportResult(folder, files, "rl", parameters, load, policy.omitted_weights(content, path))


def origin(source: Path) -> str:
    """Return where `source` comes from: `<experiment>/<file>`, or the name of a file outside an experiment."""
    experiment = experiment_folder(source)
    return source.name if experiment is None else f"{experiment.name}/{source.relative_to(experiment).as_posix()}"


def find_evaluation(source: Path) -> Mapping[str, Any] | None:
    """Return the evaluation results of `source` from the experiment that contains it; None if there are none."""
    experiment = experiment_folder(source)
    return None if experiment is None else huggingface.read_evaluation(experiment, source.stem)


def experiment_folder(source: Path) -> Path | None:
    """Return the folder of the experiment that contains `source`, or None for a file outside an experiment."""
    found = source.absolute().parent
    if (source / MANIFEST).is_file():
        found = found.parent
    marks = ("config.yaml", "metadata.json", "checkpoints")
    return found if any((found / mark).exists() for mark in marks) else None


def _load_model_lines(form: ExportFormat, folder: Path, name: str, *, code: bool) -> list[str]:
    if form is ExportFormat.HF:
        trust = ", trust_remote_code=True" if code else ""
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r}{trust})",
        ]
    path = str(folder / f"{name}.{form}")
    if form is ExportFormat.PTH:
        return ["import torch", f"state = torch.load({path!r}, weights_only=True)"]
    return ["from common.checkpoint import load_model", f"model = load_model({path!r})"]
