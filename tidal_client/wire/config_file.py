"""The configuration files of the server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .base import Open, Reply


class ConfigFile(Reply):
    """One YAML file that a job may name."""

    name: str
    """Path below the configuration folder: what `configPath` and `rlConfigPath` take."""
    kind: Annotated[Literal["lm", "rl", "invalid"], Open()]
    size_bytes: int
    problem: str | None = None
    """Why it cannot be used."""


class ConfigFileList(Reply):
    """All of them, by name."""

    configs: list[ConfigFile]


class ConfigFileContent(ConfigFile):
    """One file with its text and what it means."""

    text: str
    config: dict[str, Any] | None = None
    """With every default filled in."""
