"""Exports contain the exact model, can be loaded by the original project if requested, and are written atomically."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from common.checkpoint import CheckpointManager, load_model, save_model
from common.config import PROJECT_ROOT, PolicyConfig, RLConfig
from common.controller import GatingPolicy, load_policy
from common.errors import CheckpointError, ConflictError, InvalidInputError, NotFoundError, StorageError
from common.export import ExportFormat, checkpoint, export_checkpoint
from tests.paths import PARITY
from tests.unit.common.export.models import model_of

GATE = [f"net.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]
BLOCK = [
    *(f"{name}_proj.{part}" for name in ("q", "k", "v", "out") for part in ("weight", "bias")),
    *(f"{name}.{part}" for name in ("ffn.0", "ffn.3", "ln1", "ln2") for part in ("weight", "bias")),
    *(f"{gate}_gate.{name}" for gate in ("attn", "ffn") for name in GATE),
]
ENDS = ["token_embeddings", "final_layer_norm", "output_projection"]


def contents(folder: Path) -> list[tuple[str, int]]:
    """Return (name, size) of all files except `.tidal-export.json`, the list of files."""
    assert (folder / ".tidal-export.json").is_file()
    return [(path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if path.name[0] != "."]


def original_names(blocks: int) -> set[str]:
    """Return the tensor names that the specification lists, without using the code under test."""
    inside = {f"transformer_blocks.{i}.{name}" for i in range(blocks) for name in BLOCK}
    ends = {f"{name}.{part}" for name in ENDS for part in ("weight", "bias")} - {"token_embeddings.bias"}
    return {"rope_cos", "rope_sin"} | inside | ends


@pytest.mark.parametrize("form", [ExportFormat.SAFETENSORS, ExportFormat.PTH, ExportFormat.HF])
@pytest.mark.parametrize("source", ["mini.safetensors", "mini.pth", "folder"])
def test_every_form_of_every_source_is_the_same_model(tmp_path: Path, source: str, form: ExportFormat) -> None:
    model = model_of(vocab_size=61)
    if source == "folder":
        meta = {"kind": "lm", "model": model.config.model_dump(mode="json"), "gates_trained": True}
        manager = CheckpointManager(tmp_path / "checkpoints", keep_last=1)
        path = manager.save(7, model.state_dict(), {"step": 7}, meta=meta).path
    else:
        path = save_model(model, tmp_path / source)
    done = export_checkpoint(path, form, tmp_path / "out")
    written = next(tmp_path / "out" / name for name, _ in done.files if Path(name).suffix in (".safetensors", ".pth"))
    loaded = load_model(written)
    ids, m = torch.randint(0, 61, (2, 9)), torch.tensor([[0.2], [0.8]])
    with torch.no_grad():
        assert torch.equal(loaded(ids, m), model(ids, m))
    assert loaded.config == model.config and loaded.gates_trained
    assert contents(tmp_path / "out") == done.files
    assert done.parameters == model.num_parameters
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name", ["lm_small", "lm_small_training_checkpoint", "lm_small_compiled", "lm_small_three_gates"]
)
def test_a_pth_has_exactly_the_entries_that_the_original_reads(tmp_path: Path, name: str) -> None:
    export_checkpoint(PARITY / f"{name}.pth", ExportFormat.PTH, tmp_path / "out")
    state = torch.load(tmp_path / "out" / f"{name}.pth", weights_only=True)
    reference = torch.load(PARITY / "lm_small.pth", weights_only=True)
    assert set(state) == set(reference) == original_names(2)
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in reference.items()}
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    angles = torch.arange(64.0)[:, None] * 10000.0 ** (-torch.arange(0, 12, 2).float() / 12)
    torch.testing.assert_close(state["rope_cos"], angles.cos().repeat(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(state["rope_sin"], angles.sin().repeat(1, 2), atol=1e-5, rtol=0)
    numbers = json.loads((PARITY / "reference.json").read_text())
    with torch.no_grad():
        logits = load_model(tmp_path / "out" / f"{name}.pth")(torch.tensor(numbers["input_ids"]))
    expected = load_file(PARITY / "reference.safetensors")["logits_plain"]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_safetensors_carry_their_configuration_twice(tmp_path: Path) -> None:
    model = model_of(vocab_size=61)
    export_checkpoint(save_model(model, tmp_path / "mini.pth"), ExportFormat.SAFETENSORS, tmp_path / "out")
    beside = json.loads((tmp_path / "out" / "mini.safetensors.json").read_text())
    with safe_open(tmp_path / "out" / "mini.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["tidal"])
    assert header["model"] == beside["model"] == model.config.model_dump(mode="json")
    (tmp_path / "out" / "mini.safetensors.json").unlink()
    assert load_model(tmp_path / "out" / "mini.safetensors").config == model.config


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
@pytest.mark.parametrize("source", ["file", "folder"])
@pytest.mark.parametrize("form", [ExportFormat.SAFETENSORS, ExportFormat.PTH])
def test_controllers_keep_weights_and_configuration(
    tmp_path: Path, distribution: str, source: str, form: ExportFormat
) -> None:
    config = RLConfig(policy=PolicyConfig(distribution=distribution, hidden_dim=16, concentration_max=7.0))
    policy = GatingPolicy(config.policy, cost_critic=True)
    optimizer = torch.optim.Adam(policy.parameters()).state_dict()
    stored = config.model_dump(mode="json")
    path = tmp_path / "rl_checkpoint_final.pth"
    if source == "file":
        everything = {"optimizer_state_dict": optimizer, "global_step": 5, "config": stored}
        torch.save({"agent_state_dict": policy.state_dict(), **everything}, path)
    else:
        manager = CheckpointManager(tmp_path / "checkpoints", keep_last=1, prefix="iter")
        meta = {"kind": "rl", "global_step": 5, "config": stored}
        path = manager.save(1, policy.state_dict(), {"optimizer": optimizer}, meta=meta).path
    done = export_checkpoint(path, form, tmp_path / "out")
    written = next(tmp_path / "out" / name for name, _ in done.files if not name.endswith(".json"))
    loaded = load_policy(written)
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert (loaded.config.distribution, loaded.config.concentration_max) == (distribution, 7.0)
    if form is ExportFormat.PTH:
        raw = torch.load(written, weights_only=True)
        assert set(raw) == {"agent_state_dict", "optimizer_state_dict", "global_step", "config"}
        assert raw["global_step"] == 5
        if source == "folder":
            assert (raw["config"]["RL_AGENT_TYPE"], raw["config"]["RL_HIDDEN_DIM"]) == (distribution, 16)


def test_a_controller_has_no_form_for_transformers(tmp_path: Path) -> None:
    torch.save(GatingPolicy().state_dict(), tmp_path / "policy.pth")
    with pytest.raises(InvalidInputError, match="safetensors or pth"):
        export_checkpoint(tmp_path / "policy.pth", ExportFormat.HF, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_files_are_kept_unless_they_are_an_export_and_force_is_given(tmp_path: Path) -> None:
    source = save_model(model_of(vocab_size=61), tmp_path / "mini.pth")
    first = export_checkpoint(source, ExportFormat.HF, tmp_path / "out")
    with pytest.raises(ConflictError, match="not empty"):
        export_checkpoint(source, ExportFormat.PTH, tmp_path / "out")
    assert contents(tmp_path / "out") == first.files
    second = export_checkpoint(source, ExportFormat.PTH, tmp_path / "out", force=True)
    assert dict(contents(tmp_path / "out")).keys() == {"mini.pth", "mini.pth.json"} == dict(second.files).keys()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConflictError, match=r"thesis\.tex"):
        export_checkpoint(source, ExportFormat.PTH, tmp_path / "out", force=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(InvalidInputError, match="not a folder"):
        export_checkpoint(source, ExportFormat.PTH, source)


@pytest.mark.parametrize("form", [ExportFormat.SAFETENSORS, ExportFormat.PTH])
def test_force_never_removes_files_that_no_export_wrote(tmp_path: Path, form: ExportFormat) -> None:
    models = tmp_path / "models"
    models.mkdir()
    source = save_model(model_of(vocab_size=61), models / "a.pth")
    save_model(model_of(vocab_size=61, gates_trained=False), models / "b.pth")
    (models / "README.md").write_text("mine")
    (models / "config.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    with pytest.raises(InvalidInputError, match=r"contains a\.pth"):
        export_checkpoint(source, form, models, force=True)
    elsewhere = save_model(model_of(vocab_size=61), tmp_path / "c.pth")
    with pytest.raises(ConflictError, match="this is not an export"):
        export_checkpoint(elsewhere, form, models, force=True)
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before


def test_an_export_is_not_replaced_by_its_own_copy_or_after_a_change(tmp_path: Path) -> None:
    source = save_model(model_of(vocab_size=61), tmp_path / "mini.pth")
    out = tmp_path / "out"
    export_checkpoint(source, ExportFormat.HF, out)
    (tmp_path / "link").symlink_to(out)
    for inside in (out / "model.safetensors", tmp_path / "link" / "model.safetensors"):
        with pytest.raises(InvalidInputError, match="give another folder"):
            export_checkpoint(inside, ExportFormat.PTH, out, force=True)
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card + "\nTrained in winter.\n")
    with pytest.raises(ConflictError, match=r"README\.md' was changed"):
        export_checkpoint(source, ExportFormat.PTH, out, force=True)
    (out / "README.md").write_text(card)
    (out / "config.json").unlink()
    (out / "config.json").mkdir()
    (out / "config.json" / "kept.txt").write_text("years of work")
    with pytest.raises(ConflictError, match=r"config\.json"):
        export_checkpoint(source, ExportFormat.PTH, out, force=True)
    assert (out / "config.json" / "kept.txt").read_text() == "years of work"


@pytest.mark.parametrize("listed", ["", "[]", "{}", '{"files": ["mini.pth"]}'])
def test_a_folder_with_a_broken_list_is_not_an_export(tmp_path: Path, listed: str) -> None:
    source = save_model(model_of(vocab_size=61), tmp_path / "mini.pth")
    export_checkpoint(source, ExportFormat.PTH, tmp_path / "out")
    (tmp_path / "out" / ".tidal-export.json").write_text(listed)
    with pytest.raises(ConflictError, match="this is not an export"):
        export_checkpoint(source, ExportFormat.PTH, tmp_path / "out", force=True)
    assert load_model(tmp_path / "out" / "mini.pth").config.vocab_size == 61


def test_gates_trained_with_a_controller_are_exported_or_reported(tmp_path: Path) -> None:
    gates = {str(number): torch.full((2, 3), float(number)) for number in range(48)}
    policy = {"agent_state_dict": GatingPolicy().state_dict(), "gate_state_dict": gates}
    torch.save(policy, tmp_path / "rl.pth")
    kept = export_checkpoint(tmp_path / "rl.pth", ExportFormat.PTH, tmp_path / "pth")
    assert kept.remarks == []
    stored = torch.load(tmp_path / "pth" / "rl.pth", weights_only=True)["gate_state_dict"]
    assert list(stored) == list(gates) and all(torch.equal(stored[name], gates[name]) for name in gates)
    [remark] = export_checkpoint(tmp_path / "rl.pth", ExportFormat.SAFETENSORS, tmp_path / "safe").remarks
    assert "gate_state_dict (48 tensors)" in remark and "--format pth" in remark
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, tmp_path / "plain.pth")
    assert export_checkpoint(tmp_path / "plain.pth", ExportFormat.SAFETENSORS, tmp_path / "plain").remarks == []


def test_a_full_disk_leaves_the_previous_files_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_model(model_of(vocab_size=61), tmp_path / "mini.pth")
    export_checkpoint(source, ExportFormat.PTH, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_model", refuse)
    with pytest.raises(StorageError, match="No space left"):
        export_checkpoint(source, ExportFormat.PTH, tmp_path / "out", force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    monkeypatch.setattr(checkpoint, "SPARE_BYTES", 10**18)
    with pytest.raises(StorageError, match="MB free"):
        export_checkpoint(source, ExportFormat.PTH, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mini.pth", "mini.pth.json", "out"]


def test_invalid_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such"):
        export_checkpoint(tmp_path / "nothing.pth", ExportFormat.PTH, tmp_path / "out")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        export_checkpoint(tmp_path / "text.pth", ExportFormat.PTH, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_exporting_needs_no_transformers(tmp_path: Path) -> None:
    source = save_model(model_of(), tmp_path / "mini.pth")
    script = (
        "import sys; from common.export.__main__ import main; "
        f"assert main([{str(source)!r}, {str(tmp_path / 'out')!r}, '--format', 'hf']) == 0; "
        "sys.exit(any(name.split('.')[0] in ('transformers', 'tokenizers') for name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [*lines[-1]] == ["done"] and all([*line] == ["phase"] for line in lines[:-1])
