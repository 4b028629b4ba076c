"""A folder written whole or not at all: filled under a temporary name beside its place, flushed, then renamed.

Leaves out what is in it.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from common.errors import ConflictError, InvalidInputError
from common.files import flush, require_space, storage_errors

OURS = (
    *("*.safetensors", "*.safetensors.json", "*.pth", "*.pth.json"),
    *("config.json", "generation_config.json", "modeling_tidal.py", "README.md", "__pycache__"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
)
"""Names that exports have; a folder with any other is never replaced."""


def check_target(folder: Path, *, force: bool) -> None:
    """Refuse a place that is taken: ConflictError; with `force` only where something else than an export lies there."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InvalidInputError(f"{folder}: is no folder; name one that is new or empty")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not there:
        return
    if not force:
        raise ConflictError(f"{folder}: is not empty; name another with --out, or replace it with --force")
    foreign = [name for name in there if not any(fnmatchcase(name, pattern) for pattern in OURS)]
    if foreign:
        raise ConflictError(
            f"{folder}: holds {foreign[0]!r}, which no export wrote; --force leaves it alone, name another folder"
        )


def write_folder(folder: Path, fill: Callable[[Path], None], *, needed_bytes: int, force: bool) -> None:
    """Let `fill` write files into an empty folder that then takes the place of `folder`.

    Raises ConflictError as `check_target` does, StorageError when the disk refuses; what was there before stays then.
    """
    folder = folder.absolute()
    check_target(folder, force=force)
    mark = uuid.uuid4().hex[:8]
    temporary, aside = (folder.with_name(f".{folder.name}.{mark}.{end}") for end in ("tmp", "old"))
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        require_space(folder.parent, needed_bytes)
        try:
            temporary.mkdir()
            fill(temporary)
            for path in temporary.iterdir():
                flush(path)
            flush(temporary)
            check_target(folder, force=force)
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
