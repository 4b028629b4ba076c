"""A restore of a forged backup writes only files that the manifest lists, and only below the installation's folders."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.errors import StorageError
from tests.integration.backup.backups import restore, save, upload

GIB = 2**30
NAME = "experiments/one/model.pth"


@pytest.fixture
def backup(settings: Settings, sessions: sessionmaker[Session], engine: Engine, tmp_path: Path) -> Path:
    """Return a valid backup with one experiment and one dataset."""
    (settings.experiments_dir / "one").mkdir(parents=True)
    (settings.experiments_dir / "one" / "model.pth").write_text("weights")
    upload(settings, "tales", b"The tide came in.")
    save(settings, tmp_path / "saved.tar")
    engine.dispose()
    return tmp_path / "saved.tar"


Forge = Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]


def forged(backup: Path, target: Path, member: Forge, manifest: Callable[[dict[str, Any]], None]) -> Path:
    """Write a copy of `backup` to `target` in which the two functions change the member NAME and the manifest."""
    with tarfile.open(backup) as sound, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for info in sound:
            source = sound.extractfile(info)
            assert source is not None
            content = source.read()
            if info.name == NAME:
                info, content = member(info, content)
            if info.name == "manifest.json":
                values = json.loads(content)
                manifest(values)
                content = json.dumps(values).encode()
                info.size = len(content)
            # tarfile would copy as many bytes as the header states, but a sparse file has fewer bytes in the archive.
            tar.fileobj.write(info.tobuf(tarfile.PAX_FORMAT))  # type: ignore[union-attr]
            tar.fileobj.write(content + b"\0" * (-len(content) % 512))  # type: ignore[union-attr]
            tar.offset = tar.fileobj.tell()  # type: ignore[union-attr]
    return target


def nothing_written(settings: Settings) -> bool:
    found = [path for root in (settings.experiments_dir, settings.data_dir) for path in root.rglob("*")]
    return [path for path in found if path.name not in ("datasets", ".lock")] == []


def sparse(size: int) -> Forge:
    """Return a function that converts a member to GNU's sparse format 1.0.

    In this format, a map precedes the content, and the header states the unpacked size.
    """

    def change(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        regions = f"2\n0\n{len(content)}\n{size}\n0\n".encode()
        packed = regions + b"\0" * (-len(regions) % 512) + content
        info.size = len(packed)
        info.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": NAME, "GNU.sparse.realsize": str(size),
        }  # fmt: skip
        return info, packed

    return change


def entry(size: int, content: bytes = b"") -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["members"][NAME] = {"size": size, "sha256": hashlib.sha256(content).hexdigest()}

    return change


def unchanged(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return info, content


def link(kind: bytes) -> Forge:
    def change(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0
        return info, b""

    return change


def test_a_sparse_file_is_refused_before_a_byte_of_it_is_written(
    backup: Path, elsewhere: Settings, tmp_path: Path
) -> None:
    for size in (7, 3 * GIB):
        path = forged(backup, tmp_path / f"{size}.tar", sparse(3 * GIB), entry(size))
        assert path.stat().st_size < backup.stat().st_size + 20_000
        with tarfile.open(path) as tar:
            assert tar.getmember(NAME).size == 3 * GIB, "the forgery works: an unpacker would write this many bytes"
        with pytest.raises(StorageError, match=f"{NAME} is not a regular file"):
            restore(path, elsewhere)
        assert nothing_written(elsewhere)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_devices_and_folders_are_refused(kind: bytes, backup: Path, elsewhere: Settings, tmp_path: Path) -> None:
    path = forged(backup, tmp_path / "forged.tar", link(kind), entry(0))
    with pytest.raises(StorageError, match=f"{NAME} is not a regular file"):
        restore(path, elsewhere)
    assert nothing_written(elsewhere)


def test_a_size_that_is_not_that_of_the_manifest_is_refused(backup: Path, elsewhere: Settings, tmp_path: Path) -> None:
    for size in (0, 6, 8):
        path = forged(backup, tmp_path / f"{size}.tar", unchanged, entry(size))
        with pytest.raises(StorageError, match=f"{NAME} has 7 bytes, but the manifest lists {size}"):
            restore(path, elsewhere)
    path = forged(backup, tmp_path / "less.tar", unchanged, entry(-1))
    with pytest.raises(StorageError, match="the manifest cannot be read"):
        restore(path, elsewhere)
    assert nothing_written(elsewhere)


def test_more_than_the_disk_holds_is_refused_before_writing(backup: Path, elsewhere: Settings, tmp_path: Path) -> None:
    path = forged(backup, tmp_path / "forged.tar", unchanged, entry(2**60))
    with pytest.raises(StorageError, match=r"cannot be written .* free"):
        restore(path, elsewhere)
    assert nothing_written(elsewhere)


@pytest.mark.parametrize(
    "name",
    [
        "experiments/../../evil", "experiments/one/../../../evil", "/experiments/one/evil", "experiments/.hidden/evil",
        "experiments/evil", "tables/../evil.copy", "tables/a/b.copy", "datasets/tales/evil", "datasets/../x/text.txt",
        "datasets/.incoming-x/text.txt", "datasets/tales/../../evil", "experiments/one//evil", "experiments/one/a\0b",
        "experiments/one/" + "a" * 300, "other/one/evil",
    ],
)  # fmt: skip
def test_names_that_no_backup_has_are_refused(name: str, backup: Path, elsewhere: Settings, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["members"][name] = manifest["members"][NAME]

    with pytest.raises(StorageError, match="is not a name that a backup can contain"):
        restore(forged(backup, tmp_path / "forged.tar", unchanged, change), elsewhere)
    assert nothing_written(elsewhere)


def test_rows_are_read_from_the_backup_only(backup: Path, elsewhere: Settings, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["tables"]["../../../../etc/passwd"] = {"columns": ["a"], "rows": 1}

    with pytest.raises(StorageError, match="is not a name that a backup can contain"):
        restore(forged(backup, tmp_path / "forged.tar", unchanged, change), elsewhere)


def test_a_header_that_is_no_number_is_a_clear_error(elsewhere: Settings, tmp_path: Path) -> None:
    (tmp_path / "first").write_text("a")
    with tarfile.open(tmp_path / "odd.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / "first", "first")
        info = tarfile.TarInfo("a")
        info.pax_headers = {"GNU.sparse.map": "1,x,", "GNU.sparse.size": "9" * 40, "GNU.sparse.numblocks": "1"}
        tar.addfile(info, io.BytesIO())
    with pytest.raises(StorageError, match="is truncated or damaged"):
        restore(tmp_path / "odd.tar", elsewhere)
