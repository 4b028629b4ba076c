"""YAML text to a frozen configuration, with errors a person can act on.

An unknown key names the nearest valid one, a wrong value its place, its type and what is allowed. Leaves out: the
original's upper-case files, which `common.config.legacy` converts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from common.config.lm import LMConfig
from common.config.rl import RLConfig
from common.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


def load_lm_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> LMConfig:
    """The pretraining configuration in `path` (defaults without), with nested `overrides` laid over it.

    Raises ConfigError when the file is missing, is no YAML mapping or holds a bad key or value.
    """
    return build(LMConfig, _read(path), overrides, where=str(path or "defaults"))


def load_rl_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RLConfig:
    """The controller configuration in `path` (defaults without), with nested `overrides` laid over it."""
    return build(RLConfig, _read(path), overrides, where=str(path or "defaults"))


def build(
    section: type[S], values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, where: str = "config"
) -> S:
    """Check `values` with `overrides` merged in (nested mappings merge, everything else replaces)."""
    try:
        return section.model_validate(merge(values, overrides or {}))
    except ValidationError as error:
        findings = [_finding(section, dict(item)) for item in error.errors()]
        text = "; ".join(f"{f['location']}: {f['message']}" if f["location"] else f["message"] for f in findings)
        raise ConfigError(f"{where}: {text}", errors=findings) from None


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `overrides` on top, mappings merged key by key; neither argument is changed."""
    merged = dict(values)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def dump_yaml(config: BaseModel) -> str:
    """The configuration as YAML that loads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, found {type(values).__name__}")
    return values


def _finding(section: type[BaseModel], item: dict[str, Any]) -> dict[str, str]:
    location = [str(part) for part in item["loc"]]
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        names = list(_at(section, location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1].lower(), names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"valid keys are {', '.join(names)}"
        message = f"unknown key '{location[-1]}'; {hint}"
    elif item["type"] != "value_error":
        message = f"{message}, got {item.get('input')!r}"
    return {"location": ".".join(location), "message": message}


def _at(section: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for name in path:
        field = section.model_fields.get(name)
        if field is None:
            return section
        annotation = field.annotation
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                section = candidate
                break
    return section
