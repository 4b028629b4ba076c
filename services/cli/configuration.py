"""Values for a job from a YAML file and `--set section.key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from common.config import merge
from common.errors import ConfigError


def read_overrides(path: Path | None, settings: Sequence[str]) -> dict[str, Any]:
    """The mapping in `path` with every `a.b=value` on top; values are YAML, so 3, 1e-3, true and [a, b] work.

    Whether the keys are valid is the api's to say. ConfigError for a file that is no mapping and a setting of
    another form.
    """
    values = read_yaml(path) if path is not None else {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names):
            raise ConfigError(f"--set {setting}: write section.key=value, such as training.max_steps=200")
        nested: Any = parse_value(text)
        for name in reversed(names):
            nested = {name: nested}
        values = merge(values, nested)
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. ConfigError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, found {type(values).__name__}")
    return values


def parse_value(text: str) -> Any:
    """`text` as YAML, but 1e-3 is a number as everybody expects (YAML 1.1 wants 1.0e-3)."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not a YAML value ({error})") from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
