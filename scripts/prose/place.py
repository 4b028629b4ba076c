"""Find what a reader sees around a passage: the definition that it belongs to, and the nearest lines of source.

`scripts/sample_prose.py` prints each passage with its place, because a sentence such as "Return the sequences." is read
below the signature that it describes.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from textwrap import dedent, wrap

from scripts.prose.passage import Passage

LONGEST_STATEMENT = 9
"""Statements of more lines than this are shown only from three lines above the passage to three below."""
LONGEST_SIGNATURE = 24
"""Signatures of more lines than this are cut off."""
NEAR = 3
"""Number of lines of source that are shown above and below a passage outside a short statement."""
WIDTH = 112
"""Passages other than docstrings are wrapped at this number of characters."""
DASHBOARD_NAME = re.compile(r"^(?:export )?(?:default )?(?:async )?(?:function\*?|class|const|let) (\w+)")


@dataclass(frozen=True)
class Place:
    """A passage with the lines of source around it."""

    name: str
    """Qualified name of the enclosing definition, such as `Class.method`; "" at the top of a file."""
    above: list[str]
    """Lines of source to read before the passage."""
    shown: list[str]
    """The lines of the passage: a docstring as written, anything else with its parts joined."""
    below: list[str]
    """Lines of source to read after the passage."""


@dataclass
class _Definitions:
    """The statements of a file by line."""

    docstrings: dict[int, tuple[str, ast.stmt | None, ast.Expr]] = field(default_factory=dict)
    """By line: the qualified name of what a docstring describes, its definition or assignment, and the docstring."""
    headers: list[tuple[int, int]] = field(default_factory=list)
    """First and last line of each statement, without the body of compound statements."""
    names: list[tuple[int, int, str]] = field(default_factory=list)
    """First and last line and qualified name of each class and function; outer ones before inner ones."""


def place(passage: Passage, source: str) -> Place:
    """Return the place of a passage in the text of its file."""
    lines = source.splitlines()
    if not passage.file.endswith(".py"):
        return _dashboard_place(passage, lines)
    found = _Definitions()
    _collect(ast.parse(source), "", found)
    if passage.kind == "docstring" and passage.line in found.docstrings:
        name, owner, node = found.docstrings[passage.line]
        written = dedent(" " * node.col_offset + "\n".join(lines[node.lineno - 1 : node.end_lineno]).lstrip())
        return Place(name, _signature(owner, lines) if owner else [], written.splitlines(), [])
    name = ([""] + [name for begin, end, name in found.names if begin <= passage.line <= end])[-1]
    if passage.kind == "comment":
        return _comment_place(passage, lines, name)
    return Place(name, _statement(passage.line, lines, found.headers), wrap(passage.text, WIDTH), [])


def _collect(parent: ast.AST, prefix: str, found: _Definitions) -> None:
    """Add the statements in `parent` to `found`. `prefix` is the qualified name of the enclosing definition."""
    for _, children in ast.iter_fields(parent):
        children = children if isinstance(children, list) else []
        before: ast.stmt | None = None
        for node in children:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                described = before if before is not None else parent if isinstance(parent, ast.stmt) else None
                found.docstrings[node.lineno] = (_name_of(before, prefix) if before else prefix, described, node)
            if isinstance(node, ast.stmt):
                begin, end = _header(node)
                found.headers.append((begin, end))
                before = node
            name = prefix
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}.{node.name}".lstrip(".")
                found.names.append((begin, node.end_lineno or node.lineno, name))
            if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
                _collect(node, name, found)


def _header(node: ast.stmt) -> tuple[int, int]:
    """Return first and last line of a statement. A compound statement counts only up to the line before its body."""
    body = getattr(node, "body", None)
    begin = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    end = node.end_lineno or node.lineno
    return begin, max(node.lineno, body[0].lineno - 1) if body else end


def _name_of(statement: ast.stmt, prefix: str) -> str:
    """Return the qualified name that an assignment defines."""
    target: ast.expr | None = statement.target if isinstance(statement, ast.AnnAssign) else None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    return f"{prefix}.{ast.unparse(target).strip('()')}".lstrip(".") if target is not None else prefix


def _signature(node: ast.stmt, lines: list[str]) -> list[str]:
    """Return the lines of an assignment, or the decorators and the signature of a definition."""
    begin, end = _header(node)
    found = lines[begin - 1 : end]
    while found and not found[-1].strip():
        found.pop()
    found = dedent("\n".join(found)).splitlines()
    return found if len(found) <= LONGEST_SIGNATURE else [*found[: LONGEST_SIGNATURE - 1], "…"]


def _statement(line: int, lines: list[str], headers: list[tuple[int, int]]) -> list[str]:
    """Return the lines of the smallest statement that contains `line`, or of a part of it."""
    around = [header for header in headers if header[0] <= line <= header[1]]
    begin, end = max(around, default=(line - NEAR, line + NEAR))
    if end - begin >= LONGEST_STATEMENT:
        begin, end = max(begin, line - NEAR), min(end, line + NEAR)
    return dedent("\n".join(lines[max(begin, 1) - 1 : end])).splitlines()


def _comment_place(passage: Passage, lines: list[str], name: str) -> Place:
    """Return a comment with the code beside it, or the lines above and below it."""
    first = lines[passage.line - 1]
    shown = wrap(passage.text, WIDTH)
    if not first.lstrip().startswith(("#", "//", "/*", "<!--")):
        return Place(name, [first.strip()], shown, [])
    end = passage.line
    while end < len(lines) and (rest := lines[end].strip().strip("/*# ")) and rest in passage.text:
        end += 1
    above = lines[max(passage.line - 3, 0) : passage.line - 1]
    joined = dedent("\n".join([*above, *lines[end : end + NEAR]])).splitlines()
    return Place(name, joined[: len(above)], shown, joined[len(above) :])


def _dashboard_place(passage: Passage, lines: list[str]) -> Place:
    """Return a passage of the dashboard with three lines of source above and below its beginning."""
    named = [found for text in lines[: passage.line] if (found := DASHBOARD_NAME.match(text))]
    name = named[-1][1] if named and passage.file.endswith(".js") else ""
    if passage.kind == "comment":
        return _comment_place(passage, lines, name)
    around = lines[max(passage.line - 1 - NEAR, 0) : passage.line + NEAR]
    return Place(name, dedent("\n".join(around)).splitlines(), wrap(passage.text, WIDTH), [])
