"""Checkpoints are written atomically, and only those with correct hashes are used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager, load_model, load_policy_file
from common.checkpoint.model_file import model_meta
from common.errors import CheckpointError, StorageError
from common.model import TransformerLM

WEIGHTS = {"w": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5])}
STATE: dict[str, Any] = {"optimizer": {"state": {0: {"exp_avg": torch.ones(2, 3)}}}, "epoch": 2, "rng": (1, [2, None])}


def fill(manager: CheckpointManager, *steps: int) -> None:
    for step in steps:
        manager.save(step, WEIGHTS, {**STATE, "step": step}, meta={"kind": "lm", "note": step})
        manager.prune()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the kernel reject writes beyond `size` bytes of a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_saved_checkpoint_is_loaded_unchanged(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=2)
    info = manager.save(7, WEIGHTS, STATE, meta={"kind": "lm"})
    assert info.name == "step-000000007" and info.step == 7 and info.meta == {"kind": "lm"}
    assert info.sha256 == hashlib.sha256((info.path / "weights.safetensors").read_bytes()).hexdigest()
    assert info.size_bytes == sum(
        (info.path / name).stat().st_size for name in ("weights.safetensors", "training_state.pt")
    )
    weights, state = manager.load(info)
    assert weights.keys() == WEIGHTS.keys() and all(torch.equal(weights[k], WEIGHTS[k]) for k in WEIGHTS)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], torch.ones(2, 3))
    assert state["rng"] == (1, [2, None]) and state["epoch"] == 2
    assert CheckpointManager(tmp_path / "checkpoints", keep_last=2).latest() == info


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_newest_checkpoint_that_cannot_be_read_is_passed_over(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=2)
    fill(manager, 1, 2)
    unreadable = manager.directory / "step-000000002" / "weights.safetensors"
    original = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == unreadable:
            raise OSError(code, os.strerror(code))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    latest = manager.latest()
    assert latest is not None and latest.step == 1
    [skipped] = manager.skipped
    assert skipped.name == "step-000000002"
    assert skipped.reason == f"{unreadable}: cannot be read ({os.strerror(code)})"


def test_views_and_shared_tensors_are_saved_by_value(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    weights = {"whole": base, "same": base, "row": base[1], "turned": base.t()}
    manager = CheckpointManager(tmp_path, keep_last=1)
    loaded, _ = manager.load(manager.save(1, weights, {}, meta={}))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_the_newest_stay_and_the_order_is_by_step(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=2)
    fill(manager, 1, 2, 10)
    assert [info.step for info in manager.list()] == [2, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000010"]


def test_the_same_step_saved_twice_keeps_both_and_the_second_counts(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=3)
    fill(manager, 5)
    second = manager.save(5, WEIGHTS, {"second": True}, meta={})
    assert [info.name for info in manager.list()] == ["step-000000005", second.name]
    latest = manager.latest()
    assert latest is not None and manager.load(latest)[1] == {"second": True}


@pytest.mark.parametrize("name", ["weights.safetensors", "training_state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_checkpoint_is_passed_over_and_named(name: str, damage: str, tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=3)
    fill(manager, 1, 2)
    file = tmp_path / "step-000000002" / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        data[10] ^= 0xFF
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    latest = manager.latest()
    assert latest is not None and latest.step == 1
    assert [skipped.name for skipped in manager.skipped] == ["step-000000002"]
    assert name in manager.skipped[0].reason
    fill(manager, 3)
    latest = manager.latest()
    assert latest is not None and latest.step == 3 and manager.skipped == []


def test_damaged_checkpoints_never_push_out_a_good_one(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=2)
    fill(manager, 1, 2, 3)
    for step in (2, 3):
        (tmp_path / f"step-{step:09d}" / "manifest.json").unlink()
    fill(manager, 4)
    fill(manager, 5)
    assert [info.step for info in manager.list()] == [4, 5]


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    fill(manager, 1)
    big = {"w": torch.zeros(200_000)}
    for limit in (100_000, 810_000):  # full within the weights file, then within the state file
        with largest_file(limit), pytest.raises(StorageError, match="what was written before is intact"):
            manager.save(2, big, {"exp_avg": torch.zeros(300_000)}, meta={})
    latest = manager.latest()
    assert latest is not None and latest.step == 1 and manager.skipped == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_too_little_free_space_is_detected_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3))
    with pytest.raises(StorageError, match="free some space"):
        fill(manager, 1)
    assert list(tmp_path.iterdir()) == []


def test_state_that_could_not_be_read_back_is_refused_at_once(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    with pytest.raises(TypeError, match="use only tensors, numbers, text"):
        manager.save(1, WEIGHTS, {"path": Path("x")}, meta={})
    assert list(tmp_path.iterdir()) == []


def test_folders_of_a_writer_that_died_are_removed_and_those_of_a_live_one_stay(tmp_path: Path) -> None:
    dead, live = tmp_path / ".tmp-dead", tmp_path / ".tmp-live"
    dead.mkdir()
    live.mkdir()
    os.utime(dead, (0, 0))
    manager = CheckpointManager(tmp_path, keep_last=1)
    assert manager.latest() is None
    fill(manager, 1)
    assert not dead.exists() and live.exists()


def test_an_empty_or_absent_directory_has_no_latest(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "none", keep_last=1)
    assert manager.latest() is None and list(manager.list()) == [] and manager.skipped == []


def test_a_training_checkpoint_loads_as_a_model(model: TransformerLM, tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    info = manager.save(3, model.state_dict(), {}, meta=model_meta(model.config, model.vocabulary, gates_trained=True))
    loaded = load_model(info.path)
    assert loaded.config == model.config and loaded.gates_trained
    ids = torch.arange(8).view(1, 8)
    assert torch.equal(loaded(ids), model(ids))
    with pytest.raises(CheckpointError, match="expected a controller checkpoint"):
        load_policy_file(info.path)


def test_a_controller_checkpoint_is_no_model_but_a_policy(parity: Path, tmp_path: Path) -> None:
    agent = load_policy_file(parity / "policy.pth")["agent_state_dict"]
    manager = CheckpointManager(tmp_path, keep_last=1, prefix="iter")
    info = manager.save(3, agent, {}, meta={"kind": "rl", "global_step": 9})
    assert info.name == "iter-000000003"
    with pytest.raises(CheckpointError, match="expected a language model, found a checkpoint of kind 'rl'"):
        load_model(info.path)
    loaded = load_policy_file(info.path)
    assert loaded["global_step"] == 9
    assert all(torch.equal(loaded["agent_state_dict"][name], tensor) for name, tensor in agent.items())


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    fill(manager, 1)
    file = tmp_path / "step-000000001" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"]["../../secret"] = manifest["files"]["training_state.pt"]
    file.write_text(json.dumps(manifest))
    assert manager.latest() is None
    assert "not a valid manifest" in manager.skipped[0].reason
