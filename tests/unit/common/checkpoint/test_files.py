"""torch hides the errno of a failed write; `write_object` reports ENOSPC only if the disk was full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from common.checkpoint.files import write_object


def failing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def save(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "save", save)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("PytorchStreamWriter failed writing file data/0: file write failed", errno.ENOSPC),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0", errno.ENOSPC),
        ("CUDA error: an illegal memory access was encountered", errno.EIO),
    ],
)
def test_a_refused_write_is_distinguished_from_other_failures(
    text: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, text)
    with pytest.raises(OSError, match="cannot be written") as caught:
        write_object(tmp_path / "state.pt", {})
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_not_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        write_object(tmp_path / "missing" / "state.pt", {"a": 1})
    assert caught.value.errno == errno.ENOENT
