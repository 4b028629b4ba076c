"""The import graph has no cycles, not even through imports for the type checker, and no route imports another route."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.paths import ROOT

PACKAGES = ("common", "services", "tidal_client")
Graph = dict[str, set[str]]


def test_no_imports_form_a_cycle() -> None:
    found = cycles(import_graph())
    assert not found, "\n".join(" ↔ ".join(cycle) for cycle in found)


def test_no_route_imports_another_route() -> None:
    folder = "services.api.routes."
    assert any(module.startswith(folder) for module in import_graph())
    wrong = [
        f"{module} imports {imported}"
        for module, imports in import_graph().items()
        for imported in imports
        if module.startswith(folder) and imported.startswith(folder)
    ]
    assert not wrong, "; ".join(wrong)


def test_cycles_returns_the_modules_of_a_cycle(tmp_path: Path) -> None:
    package = tmp_path / "common"
    (package / "deep").mkdir(parents=True)
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from common.deep import b\n"
    )
    (package / "deep" / "b.py").write_text("def late() -> None:\n    from ..c import thing\n")
    (package / "c.py").write_text("import common.a\nimport json\n")
    (package / "d.py").write_text("from common import a\nfrom common.deep.b import late\n")
    for folder in (package, package / "deep"):
        (folder / "__init__.py").touch()
    assert cycles(graph_of(tmp_path)) == [["common.a", "common.c", "common.deep.b"]]


@cache
def import_graph() -> Graph:
    """Return the import graph of this project."""
    graph = graph_of(ROOT)
    assert len(graph) > 100 and sum(map(len, graph.values())) > len(graph), "most modules import another one"
    return graph


def graph_of(root: Path) -> Graph:
    """Return {module: modules that it imports} for the packages below `root`, including imports inside functions."""
    files = {
        _module_name(path.relative_to(root)): path for package in PACKAGES for path in (root / package).rglob("*.py")
    }
    return {
        module: {found for name in _imported(module, path) if (found := _nearest(name, files)) is not None} - {module}
        for module, path in files.items()
    }


def cycles(graph: Graph) -> list[list[str]]:
    """Return the cycles of the graph: sorted groups of modules that import each other directly or indirectly."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Graph, begin: str) -> set[str]:
    found: set[str] = set()
    waiting = [begin]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path) -> Iterator[str]:
    """Yield all names that the file imports. A name is a module or a member of a module."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _nearest(name: str, files: dict[str, Path]) -> str | None:
    """Return `name` if it is a module, else its parent if that is a module; None if this project has neither."""
    if name in files:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in files else None
