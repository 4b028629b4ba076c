"""Reads and writes the YAML of configuration files, `--set` options and the chart definitions of reports.

Plain values are read as in the core schema of YAML 1.2. Only `true` and `false` are booleans; `on`, `off`, `yes` and
`no` are text. `1e2`, `1e-3`, `1_000` and `0x10` are numbers, `010` is ten, and a date is text. These are errors, which
name the line: a repeated key, a key that is not text, a number that is not finite, a second document, an unknown tag,
and aliases that expand to too many values. `common.config.loader` validates keys and values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from common.errors import ConfigError

MOST_LEVELS: Final = 50
"""Largest number of levels of nested mappings and lists."""
MOST_VALUES: Final = 100_000
"""Largest number of values of a document. A value that an alias repeats is counted each time."""

_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    f"{_PREFIX}{name}" for name in ("null", "bool", "int", "float", "str", "merge")
)
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_SCALARS: Final = (
    (_NULL, "~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, "true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, f"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE, "<<", ["<"]),
)
"""Types of unquoted scalars: (tag, pattern, possible first characters). The first matching type applies; if none
matches, the scalar is text."""


class _Loader(yaml.SafeLoader):
    """Parses a text into nodes, which `_NodeReader` converts to values."""

    levels = 0
    nodes = 0
    aliases = True

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.levels += 1
        if self.levels > MOST_LEVELS:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {MOST_LEVELS} levels deep", problem_mark=mark)
        self.nodes += 1
        if self.nodes > 2 * MOST_VALUES:  # a value and its key are two nodes; check here, before all are in memory
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=mark)
        if not self.aliases and self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed here", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


_Loader.yaml_implicit_resolvers = {}  # those of YAML 1.1 are not used; `_SCALARS` has the types of this loader


class _Dumper(yaml.SafeDumper):
    """Writes YAML, and quotes texts that this module or a YAML 1.1 parser would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Only double-quoted text escapes these Unicode line ends; PyYAML reads unescaped ones as spaces.
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar(_STR, data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)

for _tag, _form, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_form})\\Z"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(f"(?:{_form})\\Z"), _first)


def parse_yaml(text: str, *, finite: bool = True, aliases: bool = True) -> Any:
    """Return the value of a YAML document, or None for an empty text. Raises ConfigError, which names the line.

    If `finite`, infinity and NaN are errors. If `aliases`, `*name` may repeat a value; otherwise it is an error.
    """
    try:
        loader = _Loader(text)
        loader.aliases = aliases
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
        raise ConfigError(f"line {line}: the character {character} is not allowed in YAML; remove it") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error) from None
    return None if node is None else _NodeReader(finite).value(node)


def read_mapping(path: Path, *, name: str | None = None) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ConfigError, which names the file (or `name`) and the line."""
    name = name or str(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: cannot be read: line {line} is not UTF-8 text; save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{name}: cannot be read ({reason})") from None
    try:
        values = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: not valid YAML: {error.message}") from None
    if values is None:
        raise ConfigError(f"{name}: the file is empty; write {{}} for the defaults")
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected a mapping of sections at the top level, found {_kind(values)}")
    return values


def write_yaml(value: Any, *, unicode: bool = True) -> str:
    """Return `value` as YAML, from which `parse_yaml` reads an equal value, with keys in the same order.

    The result is ASCII unless `unicode` is true.
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode)


class _NodeReader:
    """Converts nodes to values. It counts the values, because aliases can expand a short text to a huge value."""

    def __init__(self, finite: bool) -> None:
        self._finite = finite
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        """Return the value of a node. Raises ConfigError for a value that this module does not accept."""
        self._count += 1
        if self._count > MOST_VALUES:
            raise _error(node, f"more than {MOST_VALUES} values, including those that aliases (*name) repeat")
        if isinstance(node, yaml.ScalarNode):
            value = _scalar(node)
            if self._finite and isinstance(value, float) and not math.isfinite(value):
                raise _error(node, f"{node.value} is not a finite number")
            return value
        if id(node) in self._open:
            raise _error(node, "this value contains itself through an alias (*name)")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_PREFIX}map":
                return self._mapping(node)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PREFIX}seq":
                return [self.value(item) for item in node.value]
        finally:
            self._open.discard(id(node))
        raise _unknown_tag(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                key = "<<"
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
                shown = f" {key_node.value}" if isinstance(key_node, yaml.ScalarNode) else ""
                raise _error(key_node, f"the key{shown} is not text; put it in quotes")
            else:
                key = key_node.value
            if key in lines:
                raise _error(key_node, f"the key '{key}' is already on line {lines[key]}; keep one of them")
            lines[key] = _line(key_node)
            if key_node.tag == _MERGE:
                merged = self._merged(value_node)
            else:
                own[key] = self.value(value_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        value = self.value(node)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise _error(node, "the value of << must be a mapping or a list of mappings")
        return {key: item for part in reversed(parts) for key, item in part.items()}


def _scalar(node: yaml.ScalarNode) -> Any:
    read = _READERS.get(node.tag)
    if read is None:
        raise _unknown_tag(node)
    try:
        return read(str(node.value))
    except (ValueError, KeyError):
        raise _error(node, f"{node.value[:40]!r} cannot be read as {node.tag.removeprefix(_PREFIX)}") from None


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    _STR: str,
    _MERGE: str,
    _NULL: lambda text: None,
    _BOOL: lambda text: {"true": True, "false": False}[text.lower()],
    _INT: lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    _FLOAT: lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
"""{tag: function that converts the text of a scalar to its value}. A function raises ValueError or KeyError if the
document gives a scalar a tag that its text does not fit."""


def _unknown_tag(node: yaml.Node) -> ConfigError:
    shown = node.tag.replace(_PREFIX, "!!")
    return _error(node, f"unknown tag {shown}; remove it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _error(node: yaml.Node, problem: str) -> ConfigError:
    return ConfigError(f"line {_line(node)}: {problem}")


def _syntax_error(error: yaml.MarkedYAMLError) -> ConfigError:
    problem = str(error.problem or error.context or "unreadable")
    mark = error.problem_mark or error.context_mark
    if "'\\t'" in problem:
        problem = "a tab is not allowed here; indent with spaces"
    elif "another document" in problem:
        problem = "a second document begins here; write one document per file"
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return ConfigError(f"{where}{problem}")


def _kind(value: Any) -> str:
    return {"list": "a list", "str": "text"}.get(type(value).__name__, f"the value {value!r}")
