"""Reads the configuration files that a job may name: YAML files below the configuration folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from common.config import LMConfig, RLConfig, load_lm_config, load_rl_config
from common.config.depth import AUTO, AUTOMATIC
from common.config.yaml_text import read_mapping
from common.errors import ConfigError, InvalidInputError, NotFoundError
from common.files import path_problem, shortened
from tidal_client.wire.base import extend_reply
from tidal_client.wire.config_file import ConfigFile, ConfigFileContent

_RL_SECTIONS = frozenset(RLConfig.model_fields) - frozenset(LMConfig.model_fields)
MAX_BYTES = 1024 * 1024


def find_config(folder: Path, name: str, *, location: str = "path.file") -> Path:
    """Return the path of the file `name` below `folder`. The name may begin with the name of the folder itself.

    Raises InvalidInputError if the path leads out of the folder, even through symlinks, or is not the name of a YAML
    file. Raises NotFoundError if the file does not exist. Neither error reveals which files exist outside the folder.
    """
    root = folder.resolve()

    def refuse(message: str) -> InvalidInputError:
        return InvalidInputError.at(location, message)

    if problem := path_problem(name):
        raise refuse(f"the name {shortened(name)} {problem}")
    if "\\" in name or not name.endswith((".yaml", ".yml")):
        raise refuse(f"{name!r} is not the name of a YAML file in the configuration folder")
    relative = Path(name)
    candidates = [relative]
    if relative.parts[:1] == (folder.name,):
        candidates.insert(0, relative.relative_to(folder.name))
    for candidate in candidates:
        path = (root / candidate).resolve()
        if not path.is_relative_to(root):
            raise refuse(f"{name!r} leads out of the configuration folder; name a file below it")
        if path.is_file():
            return path
    known = ", ".join(_names(root)) or "none"
    raise NotFoundError(
        f"there is no configuration file {name!r}; existing files: {known}",
        errors=[{"location": location, "message": f"no such file; existing files: {known}"}],
    )


def config_files(folder: Path) -> list[ConfigFile]:
    """Return all YAML files below `folder`, sorted by name."""
    root = folder.resolve()
    return [_describe(root, name) for name in _names(root)]


def read_config_file(folder: Path, name: str) -> ConfigFileContent:
    """Return the text of a file, and its configuration with all defaults. Raises the errors of `find_config`."""
    path = find_config(folder, name)
    about = _describe(folder.resolve(), path.relative_to(folder.resolve()).as_posix())
    text = path.read_text(encoding="utf-8", errors="replace")
    config = None
    if about.kind == "lm":
        config = _lm_values(path)
    elif about.kind == "rl":
        config = load_rl_config(path).model_dump(mode="json")
    return extend_reply(ConfigFileContent, about, text=text, config=config)


def _lm_values(path: Path) -> dict[str, Any]:
    """Return the configuration of a language model; null for the fields that `model.depth: auto` determines."""
    config = load_lm_config(path)
    values = config.model_dump(mode="json")
    if config.model.depth == AUTO:
        for section, names in AUTOMATIC.items():
            values[section] |= {name: None for name in names if name not in getattr(config, section).model_fields_set}
    return values


def _names(root: Path) -> list[str]:
    found = (path for pattern in ("*.yaml", "*.yml") for path in root.rglob(pattern))
    inside = (path for path in found if path.is_file() and path.resolve().is_relative_to(root))
    return sorted(path.relative_to(root).as_posix() for path in inside)


def _describe(root: Path, name: str) -> ConfigFile:
    path = root / name
    size = path.stat().st_size
    if size > MAX_BYTES:
        return ConfigFile(name=name, kind="invalid", size_bytes=size, problem=f"larger than {MAX_BYTES} bytes")
    try:
        kind = _file_kind(path, name)
        (load_rl_config if kind == "rl" else load_lm_config)(path, name=name)
    except ConfigError as error:
        return ConfigFile(name=name, kind="invalid", size_bytes=size, problem=error.message)
    return ConfigFile(name=name, kind=kind, size_bytes=size)


def _file_kind(path: Path, name: str) -> Literal["lm", "rl"]:
    """Return `rl` if the file has a section that only the configuration of a controller has, otherwise `lm`."""
    return "rl" if _RL_SECTIONS & read_mapping(path, name=name).keys() else "lm"
