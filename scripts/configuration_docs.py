"""Write docs/configuration.md from the configuration classes: `.venv/bin/python scripts/configuration_docs.py`.

A test fails when the file differs from what this script writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from common.config import LMConfig, RLConfig, Settings
from common.config.environment import OTHER_VARIABLES
from common.config.settings import RENAMED

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "configuration.md"


def render() -> str:
    """Return the whole guide as Markdown."""
    parts = [
        "# Configuration",
        "`scripts/configuration_docs.py` generates this page from the classes in `common/config/`; "
        "change the texts there.",
        "An unknown key is an error, which names the nearest valid key. Durations are in seconds unless stated "
        "otherwise.",
        "Configuration files are YAML 1.2; the value in `--set key=value` is read as YAML, too. Only `true` and "
        "`false` are read as booleans. `on`, `off`, `yes` and `no` are read as text, but a boolean key accepts "
        "them, too. `1e2`, `1e-3` and `1_000` are numbers; a key whose value is an integer also accepts "
        "`1e2`. `010` is the number ten. A date is text. Every number must be finite. A repeated key, an empty file "
        "and a second document in a file are errors that name the line. "
        "`{}` means the defaults.",
        "## Language model (`configs/base_config.yaml`)",
        *_sections(LMConfig),
        "## Controller (`configs/rl_config.yaml`)",
        *_sections(RLConfig),
        "## Environment of a process",
        "A process reads these variables from the environment, and from `.env` in the working directory if they are "
        "not set there. An empty variable is an error. For an unknown name that begins with `TIDAL_`, the "
        "process logs a warning that names the nearest known variable.",
        "Some variables have been renamed. The former name still works, with a warning: "
        + "; ".join(f"`{former}` is now `{present}`" for former, present in RENAMED.items())
        + ".",
        _table(("variable", "default", "meaning"), [_variable(name, field) for name, field in _fields(Settings)]),
        "### Variables outside the settings",
        "Commands, compose and tests read these variables, and so does the logging until the settings are read.",
        _table(("variable", "meaning"), [(f"`{name}`", meaning) for name, meaning in OTHER_VARIABLES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return list(model.model_fields.items())


def _sections(model: type[BaseModel]) -> list[str]:
    blocks: list[str] = []
    plain: list[tuple[str, FieldInfo]] = []
    for name, field in _fields(model):
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            blocks += [f"### `{name}`", (section.__doc__ or "").strip(), _keys(_fields(section))]
            for key, entry in _lists(section):
                blocks += [f"#### Entries of `{name}.{key}`", (entry.__doc__ or "").strip(), _keys(_fields(entry))]
        else:
            plain.append((name, field))
    if plain:
        blocks += ["### At the top level", _keys(plain)]
    return blocks


def _lists(section: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """Return the keys of a section whose value is a list of mappings, with the class of an entry."""
    return [
        (key, entry)
        for key, field in _fields(section)
        for entry in get_args(field.annotation)
        if isinstance(entry, type) and issubclass(entry, BaseModel)
    ]


def _keys(fields: list[tuple[str, FieldInfo]]) -> str:
    return _table(
        ("key", "default", "allowed", "meaning"),
        [(f"`{name}`", _default(field), _allowed(field), _meaning(field)) for name, field in fields],
    )


def _variable(name: str, field: FieldInfo) -> tuple[str, str, str]:
    return f"`TIDAL_{name.upper()}`", _default(field), _meaning(field)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        value = ", ".join(f"{key}: {item}" for key, item in value.model_dump().items())
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    return "" if value is None else f"`{value}`" if value != "" else ""


def _allowed(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if hasattr(item, name)
    ]
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else [field.annotation]
    return " ".join([" or ".join(map(_kind, kinds)), *bounds])


def _kind(annotation: Any) -> str:
    if annotation is NoneType:
        return "None"
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    kind = re.sub(r"[a-z_]+\.", "", str(annotation)).replace("Literal", "one of ")
    return re.sub(r"tuple\[\w+Corpus, \.\.\.\]", "list of entries", kind)


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
