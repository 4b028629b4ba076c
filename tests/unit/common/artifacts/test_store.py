"""The artifact store finds files by reference, writes them atomically, and accesses no file outside its folder."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from common.artifacts import ArtifactStore
from common.errors import InvalidInputError, NotFoundError, StorageError


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    (tmp_path / "secret.pth").write_text("outside")
    store = ArtifactStore(tmp_path / "experiments")
    lm = store.root / "lm-1"
    for step in (10, 200):
        folder = lm / "checkpoints" / f"step-{step:09d}"
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(b"w" * step)
        (folder / "manifest.json").write_text("{}")
    (lm / "checkpoints" / "step-000000300").mkdir()
    (lm / "transformer-lm_v1.0.0.pth").write_bytes(b"pth")
    (lm / "transformer-lm_v1.0.0.safetensors").write_bytes(b"st")
    rl = store.root / "rl-1"
    rl.mkdir()
    (rl / "rl_checkpoint_final.pth").write_bytes(b"rl")
    return store


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("lm-1/transformer-lm_v1.0.0.pth", "lm-1/transformer-lm_v1.0.0.pth"),
        ("experiments/lm-1/transformer-lm_v1.0.0.pth", "lm-1/transformer-lm_v1.0.0.pth"),
        ("lm-1/checkpoints/step-000000010", "lm-1/checkpoints/step-000000010"),
        ("lm-1/final", "lm-1/transformer-lm_v1.0.0.safetensors"),
        ("lm-1/best", "lm-1/transformer-lm_v1.0.0.safetensors"),
        ("lm-1/latest", "lm-1/checkpoints/step-000000200"),
        ("rl-1/final", "rl-1/rl_checkpoint_final.pth"),
        ("experiments/rl-1/latest", "rl-1/rl_checkpoint_final.pth"),
    ],
)
def test_a_reference_names_what_is_there(store: ArtifactStore, reference: str, name: str) -> None:
    path = store.resolve(reference)
    assert path == (store.root / name).resolve()
    assert store.reference(path) == name


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "lm-1",
        "/etc/passwd",
        "lm-1/",
        "lm-1//final",
        "../secret.pth",
        "lm-1/../../secret.pth",
        "lm-1/../rl-1/rl_checkpoint_final.pth",
        "experiments/../secret.pth",
        "lm-1/./final",
        "..",
        "lm-1/a\0b",
        "lm-1/..\\secret.pth",
        ".hidden/final",
        "a" * 300 + "/final",
    ],
)
def test_a_reference_that_could_lead_out_is_refused(store: ArtifactStore, reference: str) -> None:
    with pytest.raises(InvalidInputError):
        store.resolve(reference)


def test_symlinks_that_lead_out_are_refused_and_never_listed(store: ArtifactStore, tmp_path: Path) -> None:
    (store.root / "lm-1" / "linked.pth").symlink_to(tmp_path / "secret.pth")
    (store.root / "evil").symlink_to(tmp_path)
    (store.root / "lm-1" / "up").symlink_to(store.root)
    for reference in ("lm-1/linked.pth", "evil/secret.pth", "lm-1/up/rl-1/rl_checkpoint_final.pth"):
        with pytest.raises(InvalidInputError, match="is outside the artifact store"):
            store.resolve(reference)
    assert "linked.pth" not in {file.name for file in store.files("lm-1")}
    assert "linked.pth" not in {file.name for file in store.checkpoint_files("lm-1")}


def test_a_missing_file_names_what_there_is(store: ArtifactStore) -> None:
    with pytest.raises(NotFoundError, match=r"transformer-lm_v1\.0\.0\.pth"):
        store.resolve("lm-1/nothing.pth")
    with pytest.raises(NotFoundError, match="no experiment"):
        store.resolve("lm-2/final")
    (store.root / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no final checkpoint"):
        store.resolve("empty/final")


def test_listing_distinguishes_finals_and_checkpoints(store: ArtifactStore) -> None:
    listed = [(file.name, file.kind, file.policy, file.size_bytes) for file in store.checkpoint_files("lm-1")]
    assert listed == [
        ("transformer-lm_v1.0.0.pth", "final", False, 3),
        ("transformer-lm_v1.0.0.safetensors", "final", False, 2),
        ("checkpoints/step-000000200", "step", False, 202),
        ("checkpoints/step-000000010", "step", False, 12),
    ]
    assert [file.policy for file in store.checkpoint_files("rl-1")] == [True]
    assert store.experiments() == ["rl-1", "lm-1"]


def test_a_write_is_complete_or_leaves_the_old_file(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_json("lm-1", "deep/er/value.json", {"a": 1})
    assert store.read_json("lm-1", "deep/er/value.json") == {"a": 1}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.write_json("lm-1", "deep/er/value.json", {"a": 2})
    monkeypatch.undo()
    assert json.loads((store.root / "lm-1/deep/er/value.json").read_text()) == {"a": 1}
    assert [path.name for path in (store.root / "lm-1/deep/er").iterdir()] == ["value.json"]


def test_errors_of_reading_name_what_is_wrong(store: ArtifactStore) -> None:
    with pytest.raises(NotFoundError, match=r"no metadata\.json"):
        store.read_json("lm-1", "metadata.json")
    (store.root / "lm-1" / "metadata.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        store.read_json("lm-1", "metadata.json")


def test_deleting_removes_the_folder(store: ArtifactStore) -> None:
    store.delete("lm-1")
    assert store.experiments() == ["rl-1"]
    assert [path.name for path in store.root.iterdir()] == ["rl-1"]
    with pytest.raises(NotFoundError):
        store.delete("lm-1")


def test_a_training_that_prunes_meanwhile_disturbs_no_listing(store: ArtifactStore) -> None:
    folder = store.root / "lm-1" / "checkpoints"

    def train() -> None:
        for step in range(1000, 1300):
            made = folder / f"step-{step:09d}"
            made.mkdir()
            for name in ("weights.safetensors", "training_state.pt", "manifest.json"):
                (made / name).write_text("{}")
            # `CheckpointManager.prune` also deletes the manifest first.
            (made / "manifest.json").unlink()
            shutil.rmtree(made)

    training = threading.Thread(target=train)
    training.start()
    always = {"transformer-lm_v1.0.0.pth", "checkpoints/step-000000010", "checkpoints/step-000000200"}
    while training.is_alive():
        assert always <= {file.name for file in store.checkpoint_files("lm-1")}
        assert always <= {file.name.removesuffix("/manifest.json") for file in store.files("lm-1")}
        store.resolve("lm-1/best")
    training.join()
