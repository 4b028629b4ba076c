"""A public class or function name is defined by only one module of `common` and `tidal_client`."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.paths import ROOT

SHARED = {"main"}
"""Names that several modules may define."""


def test_no_public_name_is_defined_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("common", "tidal_client"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in public_names(path.read_text(encoding="utf-8")):
                places[name].append(str(path.relative_to(ROOT)))
    assert len(places) > 500
    twice = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in SHARED}
    assert not twice, f"rename all but one of each: {twice}"


def test_classes_and_functions_at_the_top_are_public_names_unless_they_begin_with_an_underscore() -> None:
    source = "class A:\n    def method(self): ...\ndef b(): ...\nasync def c(): ...\ndef _d(): ...\nE = 1\n"
    assert public_names(source) == {"A", "b", "c"}


def public_names(source: str) -> set[str]:
    """Return the names of the public classes and functions at the top level of a module."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(source).body if isinstance(node, definitions) and node.name[0] != "_"}
