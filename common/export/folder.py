"""Writes a folder atomically: it is filled under a temporary name in the same parent folder, flushed, then renamed.

The folder contains a list of its files, `.tidal-export.json`. Only a folder that holds exactly the listed files is ever
replaced.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import ConflictError, InvalidInputError
from common.files import flush, require_space, storage_errors, write_json

LIST_FILE = ".tidal-export.json"
"""`{"files": {"model.safetensors": 4711, …}}`: names and sizes in bytes of all other files in the folder."""


def require_writable_target(folder: Path, source: Path, *, force: bool) -> None:
    """Raise an error if `folder` must not be written.

    Raises ConflictError if the folder is not empty. With `force`, a folder that contains only an older export is
    accepted, because it may be replaced. Raises InvalidInputError if the path is not a folder, or if it is or contains
    `source`.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InvalidInputError(f"{folder}: this is not a folder; give a folder that is new or empty")
    if folder.resolve() in (source.resolve(), *source.resolve().parents, *source.absolute().parents):
        raise InvalidInputError(
            f"{folder}: this folder contains {source.name}, which is to be exported; give another folder"
        )
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    if not present:
        return
    if not force:
        raise ConflictError(f"{folder}: the folder is not empty; give another with --out, or replace it with --force")
    listed = _read_file_list(folder)
    if listed is None:
        raise ConflictError(f"{folder}: this is not an export (it has no {LIST_FILE}), so --force does not replace it")
    for path in present:
        if path.name == LIST_FILE:
            continue
        if path.name not in listed or path.is_symlink() or not path.is_file():
            raise ConflictError(
                f"{folder}: {path.name!r} does not belong to the export, so --force does not replace the folder"
            )
        if path.stat().st_size != listed[path.name]:
            raise ConflictError(
                f"{folder}: {path.name!r} was changed after the export, so --force does not replace the folder"
            )


def write_folder(
    folder: Path, fill: Callable[[Path], None], *, source: Path, needed_bytes: int, force: bool
) -> list[tuple[str, int]]:
    """Call `fill` to write files into an empty folder that then replaces `folder`; return their names and sizes.

    Raises the errors of `require_writable_target`, and StorageError if a file cannot be written. After an error the
    previous content of `folder` is unchanged.
    """
    folder = folder.absolute()
    require_writable_target(folder, source, force=force)
    suffix = uuid.uuid4().hex[:8]
    temporary, replaced = (folder.with_name(f".{folder.name}.{suffix}.{end}") for end in ("tmp", "old"))
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        require_space(folder.parent, needed_bytes)
        try:
            temporary.mkdir()
            fill(temporary)
            files = sorted((path.name, path.stat().st_size) for path in temporary.iterdir())
            write_json(temporary / LIST_FILE, {"files": dict(files)})
            for path in temporary.iterdir():
                flush(path)
            flush(temporary)
            require_writable_target(folder, source, force=force)
            if folder.exists():
                folder.rename(replaced)
            try:
                temporary.rename(folder)
            except OSError:
                if replaced.exists():
                    replaced.rename(folder)
                raise
            flush(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return files


def _read_file_list(folder: Path) -> dict[str, Any] | None:
    """Return names and sizes from the folder's list of files, or None if there is no readable list."""
    try:
        files = json.loads((folder / LIST_FILE).read_bytes())["files"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return files if isinstance(files, dict) else None
