"""A shortage of disk space is detected before the disk is full, and is described to the user."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from common import disk
from common.disk import MIB, DiskReserve, Shortage, free_bytes, is_full
from common.errors import DiskFullError, StorageError
from common.files import storage_errors


def test_free_space_of_a_missing_folder_is_that_of_its_disk(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.05)


def test_a_disk_lacks_what_its_reserve_or_the_next_write_needs(tmp_path: Path) -> None:
    enough = DiskReserve({"experiments": tmp_path}, MIB)
    assert enough.shortage("experiments") is None
    scarce = DiskReserve({"experiments": tmp_path, "data": tmp_path}, 2**60)
    found = scarce.shortage("data")
    assert found is not None and (found.disk, found.needed_bytes) == ("data", 2**60)
    large = enough.shortage("experiments", next_write_bytes=2**60)
    assert large is not None and large.needed_bytes == 2**60 + MIB // 4, (
        "the next write must leave a quarter of the reserve"
    )


def test_without_a_reserve_only_a_refused_write_counts(tmp_path: Path) -> None:
    none = DiskReserve({"experiments": tmp_path}, 0)
    assert none.shortage("experiments", next_write_bytes=2**60) is None
    assert none.refused("experiments", "Disk quota exceeded").reason == "Disk quota exceeded"


def test_a_disk_with_room_is_not_asked_again_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = DiskReserve({"experiments": tmp_path}, MIB)
    assert reserve.shortage("experiments") is None
    monkeypatch.setattr(disk, "free_bytes", lambda _: 0)
    assert reserve.shortage("experiments") is None
    monkeypatch.setattr(disk, "RECHECK_SECONDS", 0.0)
    assert reserve.shortage("experiments") is not None


def test_a_disk_that_does_not_answer_causes_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(_: Path) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(disk, "free_bytes", dead)
    assert DiskReserve({"experiments": tmp_path}, MIB).shortage("experiments") is None


def test_a_shortage_names_the_disk_and_the_figures() -> None:
    assert str(Shortage("experiments", 12 * MIB, 1024 * MIB)) == (
        "12 MiB are free on the disk of the experiments, 1,024 MiB are needed"
    )
    quota = Shortage("data", 9 * MIB, 0, reason="Disk quota exceeded")
    assert str(quota) == "writing to the disk of the data fails (Disk quota exceeded)"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_distinguished_from_every_other_failure(number: int, tmp_path: Path) -> None:
    hidden = OSError(errno.EIO, f"I/O error: {os.strerror(number)} (os error {number})")
    for error in (OSError(number, os.strerror(number)), hidden):
        assert is_full(error)
        with pytest.raises(DiskFullError, match="free some space"), storage_errors(tmp_path):
            raise error
    for other in (OSError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "os error 5)")):
        assert not is_full(other)
        with pytest.raises(StorageError) as found, storage_errors(tmp_path):
            raise other
        assert not isinstance(found.value, DiskFullError)
