"""A folder written whole or not at all: filled under a temporary name beside its place, flushed, then renamed.

It carries a list of its files, `.tidal-export.json`; only a folder that holds exactly what its list says is ever
replaced. Leaves out what is in it.
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
"""`{"files": {"model.safetensors": 4711, …}}`: names and sizes in bytes of everything beside it."""


def check_target(folder: Path, source: Path, *, force: bool) -> None:
    """Refuse a place that is taken: ConflictError; with `force` only where something else than an export lies there.

    InvalidInputError for what is no folder, and for one that holds `source` or is it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InvalidInputError(f"{folder}: is no folder; name one that is new or empty")
    if folder.resolve() in (source.resolve(), *source.resolve().parents, *source.absolute().parents):
        raise InvalidInputError(f"{folder}: holds {source.name}, which is to be exported; name another folder")
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    if not there:
        return
    if not force:
        raise ConflictError(f"{folder}: is not empty; name another with --out, or replace it with --force")
    listed = _listed(folder)
    if listed is None:
        raise ConflictError(f"{folder}: no export wrote it (it has no {LIST_FILE}); --force leaves it alone")
    for path in there:
        if path.name == LIST_FILE:
            continue
        if path.name not in listed or path.is_symlink() or not path.is_file():
            raise ConflictError(f"{folder}: holds {path.name!r}, which no export wrote; --force leaves it alone")
        if path.stat().st_size != listed[path.name]:
            raise ConflictError(f"{folder}: {path.name!r} was changed after the export; --force leaves it alone")


def write_folder(
    folder: Path, fill: Callable[[Path], None], *, source: Path, needed_bytes: int, force: bool
) -> list[tuple[str, int]]:
    """Let `fill` write files into an empty folder that then takes the place of `folder`; their names and sizes.

    Raises as `check_target` does, StorageError when the disk refuses; what was there before stays then.
    """
    folder = folder.absolute()
    check_target(folder, source, force=force)
    mark = uuid.uuid4().hex[:8]
    temporary, aside = (folder.with_name(f".{folder.name}.{mark}.{end}") for end in ("tmp", "old"))
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
            check_target(folder, source, force=force)
            if folder.exists():
                folder.rename(aside)
            try:
                temporary.rename(folder)
            except OSError:
                if aside.exists():
                    aside.rename(folder)
                raise
            flush(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    return files


def _listed(folder: Path) -> dict[str, Any] | None:
    """The files that the folder's list names; None without a readable list."""
    try:
        files = json.loads((folder / LIST_FILE).read_bytes())["files"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return files if isinstance(files, dict) else None
