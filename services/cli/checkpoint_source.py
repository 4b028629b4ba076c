"""Finds the checkpoint that a command names: a path on this machine, or a reference to the store of the local stack.

Examples of paths are `out/model.safetensors`, `out` and `out/best` (folders of `tidal train`), and
`checkpoints/step-000000100`. References are `EXPERIMENT/FILE` and `EXPERIMENT/final`. Stores on other machines are not
searched.
"""

from __future__ import annotations

from pathlib import Path

from common.artifacts import ALIASES, ArtifactStore
from common.config import get_settings
from common.errors import InvalidInputError, NotFoundError
from tidal_client import read_instance
from tidal_client.local_instance import instance_folder


def local_store() -> ArtifactStore:
    """Return the artifact store of the running local stack.

    If none is running, use TIDAL_EXPERIMENTS_DIR or, if it is not set, the store of the stopped stack.
    """
    if instance := read_instance():
        return ArtifactStore(instance.experiments_dir)
    settings, stopped = get_settings(), instance_folder() / "experiments"
    given = "experiments_dir" in settings.model_fields_set
    return ArtifactStore(stopped if not given and stopped.is_dir() else settings.experiments_dir)


def is_path(text: str) -> bool:
    """Return True if `text` is a path on this machine, False if it is a reference."""
    path = Path(text).expanduser()
    return path.exists() or (path.name in ALIASES and path.parent.is_dir() and len(path.parts) > 1)


def checkpoint_path(text: str) -> Path:
    """Return the checkpoint file or folder that `text` names.

    Raises NotFoundError, which lists the places that were searched.
    """
    path = Path(text).expanduser()
    if is_path(text):
        return _on_disk(path)
    store = local_store()
    reference = text if "/" in text else f"{text}/final"
    try:
        return store.resolve(reference)
    except InvalidInputError:
        raise NotFoundError(f"{text}: no such file, and not a reference of the form EXPERIMENT/FILE") from None
    except NotFoundError as error:
        if store.root.is_dir() and (store.root / reference.split("/")[0]).is_dir():
            raise
        raise NotFoundError(f"{text}: no such file, and no such experiment in {store.root}") from error


def _on_disk(path: Path) -> Path:
    path = path.absolute()
    if path.is_file() or (path / "manifest.json").is_file():
        return path
    folder, aliases = (path, ("final", "latest")) if path.is_dir() else (path.parent, (path.name,))
    folder = folder.resolve()
    store = ArtifactStore(folder.parent)
    for alias in aliases:
        try:
            return store.resolve(f"{folder.name}/{alias}")
        except NotFoundError:
            continue
    what = "no checkpoint" if path.is_dir() else f"no {path.name} checkpoint"
    raise NotFoundError(f"{folder}: there is {what} in this folder")
