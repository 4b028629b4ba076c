"""Builds immutable configurations from YAML files, with errors that name what to change.

The error for an unknown key names the nearest valid key. The error for an invalid value names the key, the value and
the allowed values. `common.config.yaml_text` reads the YAML text. `common.config.legacy` converts files of the original
project.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from common.config.depth import without_superseded
from common.config.lm import LMConfig
from common.config.rl import RLConfig
from common.config.unknown_keys import first_of
from common.config.yaml_text import read_mapping, write_yaml
from common.errors import ConfigError, omitted_findings

S = TypeVar("S", bound=BaseModel)
MOST_SHOWN = 100
"""Largest number of characters of an invalid value or key in an error message."""
MOST_NAMED = 10
"""Largest number of findings in the message of a ConfigError. Its attribute `errors` may list more of them: up to
`common.errors.MOST_FINDINGS`."""


def load_lm_config(
    path: str | Path | None = None, overrides: Mapping[str, Any] | None = None, *, name: str | None = None
) -> LMConfig:
    """Return the pretraining configuration in the file `path`, or the defaults, with `overrides` merged in.

    `overrides` is a nested mapping. If `name` is given, error messages contain it instead of the path. Raises
    ConfigError if the file is missing, is not a YAML mapping, or has an unknown key or an invalid value.
    """
    return _load(LMConfig, path, overrides, name)


def load_rl_config(
    path: str | Path | None = None, overrides: Mapping[str, Any] | None = None, *, name: str | None = None
) -> RLConfig:
    """Return a controller configuration; parameters and errors are those of `load_lm_config`."""
    return _load(RLConfig, path, overrides, name)


def build(
    section: type[S], values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, where: str = "config"
) -> S:
    """Return the section with these values after merging in `overrides`.

    `model.depth` in `overrides` replaces the values that follow from it, such as `model.d_model` in `values`.
    Raises ConfigError. Its message begins with `where`, and its attribute `errors` lists the findings.
    """
    try:
        changes = overrides or {}
        return section.model_validate(merge(without_superseded(values, changes), changes))
    except ValidationError as error:
        listed, others = first_of(error.errors(include_url=False))
        findings = [_finding(section, dict(item)) for item in listed]
        texts = [f"{f['location']}: {f['message']}" if f["location"] else f["message"] for f in findings]
        if others:
            findings.append(omitted_findings(others))
        if (unnamed := len(texts) - MOST_NAMED + others) > 0:
            texts = [*texts[:MOST_NAMED], f"and {unnamed:,} more"]
        text = "; ".join(texts)
        raise ConfigError(f"{where}: {text}", errors=findings) from None


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `values` with `overrides` merged in: nested mappings are merged, other values replaced.

    An override of `source` also removes the list `sources`, and the other way round, because a `data` section has only
    one of them.
    """
    merged = {key: value for key, value in values.items() if key not in _replaced_keys(overrides)}
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _replaced_keys(overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a `data` section that lose their values because `overrides` names another corpus."""
    if overrides.get("sources") and overrides.get("source") is None:
        return ("source", "validation_source", "text_field", "max_documents")
    if overrides.get("source") is not None and not overrides.get("sources"):
        return ("sources",)
    return ()


def dump_yaml(config: BaseModel) -> str:
    """Return the configuration as YAML, from which an equal configuration can be loaded."""
    return write_yaml(config.model_dump(mode="json"))


def _load(section: type[S], path: str | Path | None, overrides: Mapping[str, Any] | None, name: str | None) -> S:
    if path is None:
        return build(section, {}, overrides, where="defaults")
    return build(section, read_mapping(Path(path), name=name), overrides, where=name or str(path))


def _finding(section: type[BaseModel], item: dict[str, Any]) -> dict[str, str]:
    location = [_short_key(str(part)) for part in item["loc"]]
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        names = list(_section_at(section, location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1].lower(), names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"valid keys are {', '.join(names)}"
        message = f"unknown key '{location[-1]}'; {hint}"
    elif item["type"] == "string_type" and isinstance(item.get("input"), int | float):
        message = f"{message}, got the number {item['input']!r}; write it in quotes"
    elif item["type"] != "value_error":
        message = f"{message}, got {_short(item.get('input'))}"
    return {"location": ".".join(location), "message": message}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _short_key(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _section_at(section: type[BaseModel], path: list[str]) -> type[BaseModel]:
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
