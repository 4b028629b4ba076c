"""The configuration files of the server on the wire."""

from __future__ import annotations

from typing import Any, Literal

from services.api.schemas.base import Reply


class ConfigFile(Reply):
    """One YAML file that a job may name."""

    name: str
    """Path below the configuration folder: what `configPath` and `rlConfigPath` take."""
    kind: Literal["lm", "rl", "invalid"]
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
