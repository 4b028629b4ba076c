"""The configuration files on the server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .base import OpenEnum, Reply


class ConfigFile(Reply):
    """A YAML file that a job can use as its configuration."""

    name: str
    """Path relative to the configuration folder; `configPath` and `rlConfigPath` accept it."""
    kind: Annotated[Literal["lm", "rl", "invalid"], OpenEnum()]
    size_bytes: int
    problem: str | None = None
    """Why the file cannot be used; null if it can."""


class ConfigFileList(Reply):
    """All configuration files, sorted by name."""

    configs: list[ConfigFile]


class ConfigFileContent(ConfigFile):
    """A configuration file with its text and the parsed configuration."""

    text: str
    config: dict[str, Any] | None = None
    """The configuration with all defaults filled in; null if the file cannot be used."""
