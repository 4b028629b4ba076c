"""All formats of the original give the same numbers, Tidal's own format loses nothing, bad files are rejected."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.checkpoint import export_legacy_state_dict, load_model, load_policy_file, migrate_checkpoint, save_model
from common.checkpoint.__main__ import main
from common.errors import CheckpointError, NotFoundError, StorageError
from common.model import ModelConfig, TransformerLM

FORMS = ["lm_small", "lm_small_training_checkpoint", "lm_small_compiled", "lm_small_three_gates"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_every_form_gives_the_originals_logits(form: str, kind: str, parity: Path) -> None:
    reference = json.loads((parity / "reference.json").read_text())
    tensors = load_file(parity / "reference.safetensors")
    model = load_model(parity / f"{form}.pth")
    modulation = torch.tensor(reference["modulation"]).view(-1, 1) if kind == "gated" else None
    with torch.no_grad():
        logits = model(torch.tensor(reference["input_ids"]), modulation)
    torch.testing.assert_close(logits, tensors[f"logits_{kind}"], atol=1e-5, rtol=0)
    assert not model.training and not model.gates_trained


def test_the_configuration_is_read_from_the_shapes(parity: Path) -> None:
    config = load_model(parity / "lm_small.pth").config
    assert config == ModelConfig(
        vocab_size=331, d_model=48, num_layers=2, num_heads=4, ffn_dim=96, context_length=64, gate_hidden_dim=32
    )


@pytest.mark.parametrize("column", [0, 1, 2])
def test_all_forms_at_once_keep_the_chosen_gate_column(column: int, parity: Path) -> None:
    path = parity / "lm_d64_all_forms.pth"
    wrapped = torch.load(path, weights_only=True)["model_state_dict"]
    model = load_model(path, gate_column=column)
    assert model.config.d_model == 64
    ours = model.state_dict()
    assert {f"_orig_mod.{name}" for name in ours} == set(wrapped)
    for name, tensor in ours.items():
        original = wrapped[f"_orig_mod.{name}"]
        if name.endswith("_gate.net.0.weight"):
            assert original.shape[1] == 3
            original = original[:, column : column + 1]
        assert torch.equal(tensor, original), name


def test_a_missing_gate_column_is_named(parity: Path) -> None:
    with pytest.raises(CheckpointError, match=r"3 gate inputs; choose one from 0 to 2, not 3"):
        load_model(parity / "lm_small_three_gates.pth", gate_column=3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("gates_trained", [True, False])
def test_a_saved_model_comes_back_with_its_configuration(
    suffix: str, gates_trained: bool, model: TransformerLM, tmp_path: Path
) -> None:
    model.gates_trained = gates_trained
    path = save_model(model, tmp_path / f"mini_v1.0.0{suffix}")
    loaded = load_model(path)
    assert loaded.config == model.config
    assert loaded.gates_trained is gates_trained
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, path.name + ".json"]


def test_an_exported_file_loads_strictly_by_the_originals_names(parity: Path, tmp_path: Path) -> None:
    path = save_model(load_model(parity / "lm_small_three_gates.pth"), tmp_path / "export.pth")
    exported = torch.load(path, weights_only=True)
    original = torch.load(parity / "lm_small.pth", weights_only=True)
    assert list(exported) == list(original)
    for name, tensor in original.items():
        assert torch.equal(exported[name], tensor), name
        assert exported[name].dtype == torch.float32


class _Compiled(torch.nn.Module):
    """Wraps a model in the attribute `_orig_mod`, as torch.compile does."""

    def __init__(self, model: TransformerLM) -> None:
        super().__init__()
        self._orig_mod = model


def test_an_export_of_a_compiled_module_has_plain_names(model: TransformerLM) -> None:
    compiled = _Compiled(model)
    assert next(iter(compiled.state_dict())).startswith("_orig_mod.")
    assert list(export_legacy_state_dict(compiled)) == list(model.state_dict())


def test_an_export_does_not_follow_later_training(model: TransformerLM) -> None:
    exported = export_legacy_state_dict(model)
    with torch.no_grad():
        model.output_projection.bias.add_(1.0)
    assert not exported["output_projection.bias"].any()


def test_a_safetensors_file_without_its_manifest_still_loads(model: TransformerLM, tmp_path: Path) -> None:
    model.gates_trained = True
    path = save_model(model, tmp_path / "m.safetensors")
    path.with_name(path.name + ".json").unlink()
    loaded = load_model(path)
    assert loaded.config == model.config and loaded.gates_trained


def test_loading_uses_no_random_numbers(model: TransformerLM, tmp_path: Path) -> None:
    path = save_model(model, tmp_path / "m.safetensors")
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_loaded_model_can_be_trained(parity: Path) -> None:
    loaded = load_model(parity / "lm_small.pth").train()
    loaded(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 1)).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_migration_writes_one_input_gates_and_refuses_to_overwrite(parity: Path, tmp_path: Path) -> None:
    target = tmp_path / "migrated.pth"
    result = migrate_checkpoint(parity / "lm_small_three_gates.pth", target)
    assert result.gates_migrated == 4
    migrated, original = torch.load(target, weights_only=True), torch.load(parity / "lm_small.pth", weights_only=True)
    assert all(torch.equal(migrated[name], original[name]) for name in original)
    with pytest.raises(StorageError, match="already exists"):
        migrate_checkpoint(parity / "lm_small_three_gates.pth", target)


def test_the_command_migrates_or_prints_the_reason_of_its_failure(
    parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(parity / "lm_d64_all_forms.pth"), str(tmp_path / "m.safetensors"), "--column", "0"]
    assert main(arguments) == 0
    assert "2 gates reduced to input 0" in capsys.readouterr().out
    assert load_model(tmp_path / "m.safetensors").config.d_model == 64
    assert main(arguments) == 1
    assert "already exists" in capsys.readouterr().err


class _Harmful:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import common.errors; common.errors.CODE_RAN = True",))


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    import common.errors

    zipped, plain = tmp_path / "zip.pth", tmp_path / "plain.pth"
    torch.save({"model_state_dict": _Harmful()}, zipped)
    plain.write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(CheckpointError, match="pickled objects other than tensors"):
        load_model(zipped)
    with pytest.raises(CheckpointError):
        load_model(plain)
    with pytest.raises(CheckpointError, match="pickled objects other than tensors"):
        load_policy_file(zipped)
    assert not hasattr(common.errors, "CODE_RAN")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_file_is_an_error_that_names_it(
    share: float, suffix: str, manifest: bool, model: TransformerLM, tmp_path: Path
) -> None:
    path = save_model(model, tmp_path / f"m{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    if not manifest:
        path.with_name(path.name + ".json").unlink()
    with pytest.raises(CheckpointError, match=str(path)):
        load_model(path)


def test_files_other_than_models_are_reported_as_such(model: TransformerLM, parity: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.pth"
    text.write_text("Once upon a time there was a file.")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_model(text)
    with pytest.raises(CheckpointError, match="controller"):
        load_model(parity / "policy.pth")
    with pytest.raises(CheckpointError, match="no agent_state_dict"):
        load_policy_file(parity / "lm_small.pth")
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        load_model(tmp_path / "absent.pth")
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match=r"\.safetensors or \.pth"):
        save_model(model, tmp_path / "model.bin")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, other)
    with pytest.raises(CheckpointError, match=r"token_embeddings\.weight is missing"):
        load_model(other)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="expected a state dict, found list"):
        load_model(tmp_path / "list.pth")


def test_missing_unknown_and_misshapen_tensors_are_named(model: TransformerLM, tmp_path: Path) -> None:
    state = export_legacy_state_dict(model)
    del state["final_layer_norm.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["transformer_blocks.1.ln1.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "odd.pth")
    assert "missing final_layer_norm.bias" in caught.value.message
    assert "unknown extra.weight" in caught.value.message
    assert "transformer_blocks.1.ln1.bias is (7,) instead of (24,)" in caught.value.message


def test_a_file_that_does_not_match_its_manifest_is_refused(model: TransformerLM, tmp_path: Path) -> None:
    path = save_model(model, tmp_path / "m.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_model(path)


@pytest.mark.parametrize("name", ["policy", "policy_capped"])
def test_policy_files_of_the_original_are_read(name: str, parity: Path, tmp_path: Path) -> None:
    loaded = load_policy_file(parity / f"{name}.pth")
    assert loaded["agent_state_dict"]["feature_extractor.1.weight"].shape[1] == 64
    assert set(torch.load(parity / f"{name}.pth", weights_only=True)) == set(loaded)
    bare = tmp_path / "bare.pth"
    torch.save({f"_orig_mod.{key}": value for key, value in loaded["agent_state_dict"].items()}, bare)
    again = load_policy_file(bare)["agent_state_dict"]
    assert all(torch.equal(again[key], value) for key, value in loaded["agent_state_dict"].items())
