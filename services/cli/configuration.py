"""Reads the configuration of a job from a YAML file and from options `--set section.key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config import merge
from common.config.yaml_text import parse_yaml, read_mapping
from common.errors import ConfigError


def read_overrides(path: Path | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the mapping in `path`, updated with all `settings`. A setting has the form `a.b=value` with a YAML value.

    The keys are not checked here, because the api checks them. Raises ConfigError if the file does not contain a
    mapping, or if a setting does not have this form.
    """
    values = read_mapping(path) if path is not None else {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names):
            raise ConfigError(f"--set {setting}: expected section.key=value, such as training.max_steps=200")
        try:
            nested: Any = parse_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"--set {setting}: the value is not valid YAML: {error.message}") from None
        for name in reversed(names):
            nested = {name: nested}
        values = merge(values, nested)
    return values
