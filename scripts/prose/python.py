"""Collect the prose of a Python file with `ast` and `tokenize`, for `scripts/prose`.

The kind of a string follows from the call that contains it: a method of a logger, an exception, or a printing function.
A string outside such calls has the kind "text"; it is collected if it has at least four words and is not in a test.
Program text, such as SQL or JavaScript, is not collected.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from scripts.prose.passage import TWO_WORDS, Passage

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
HELP_ARGUMENTS = {"help", "description", "epilog", "short_help"}
OUTPUT_CALLS = {"print", "echo", "rule", "prompt", "confirm", "secho", "_print", "assemble", "Text"}
DIRECTIVE = re.compile(r"#\s*(!|noqa|type:|pragma|fmt:|ruff:|mypy:|-\*-)")
NO_PLAIN_TEXTS = ("tests/", "migrations/", "common/data/stor")
"""Beginnings of the paths of files whose strings of the kind "text" are not collected, because they are data: test
data, SQL, or sentences of the built-in corpus."""
PROGRAM_TEXT = re.compile(
    r"\s*(<|\||:root|\*\{|```|-H |local |if redis|(GET|POST) \S+ HTTP/|COPY \{\}|--- )"
    r"|.*=>|\s*(import|from) [\w, ]+;|\s*from [\w.]+ import "
    r"|\s*(set transaction|select|insert into|update|delete from|create|alter|drop|with)\b(?-i:[^.]*$)"
    r"|\s*(from|import|def|class)\b(?-i:[^.]*$)"
    r"|.*(?-i:\b(IN \(|AND|OR|IS NULL|IS NOT|BEGIN|RETURN)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""Strings that match this pattern are not prose but SQL, Python, JavaScript, Lua, CSS, markup or an HTTP request."""


def python_passages(source: str, file: str) -> list[Passage]:
    """Return the prose of one Python file. Raises SyntaxError if `source` is not Python."""
    tree = ast.parse(source)
    found = _Strings(file)
    found.visit(tree)
    return sorted({*found.passages, *_comments(source, file)})


def _comments(source: str, file: str) -> Iterator[Passage]:
    """Yield the comments of a file; consecutive comment lines in the same column are one passage."""
    block: list[tuple[int, int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        (line, column), text = token.start, token.string.lstrip("#").strip()
        alone = not token.line[:column].strip()
        if block and not (alone and (block[-1][0], block[-1][1]) == (line - 1, column)):
            yield from _joined(block, file)
            block = []
        block.append((line, column if alone else -1, text))
    yield from _joined(block, file)


def _joined(block: list[tuple[int, int, str]], file: str) -> Iterator[Passage]:
    text = " ".join(text for _, _, text in block).strip()
    if re.search(r"[^\W\d_]{2}", text):
        yield Passage(file, block[0][0], "comment", text)


class _Strings(ast.NodeVisitor):
    """Collects docstrings and strings. The statement or call that contains a string determines its kind."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.passages: list[Passage] = []
        self._kinds: list[str] = []

    def generic_visit(self, node: ast.AST) -> None:
        """Visit the children of a node, and collect strings that are statements of their own as docstrings."""
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                self._add(value, "docstring", value.value)
        super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Visit an expression statement, but skip docstrings, which `generic_visit` has already collected."""
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Classify the strings of a raised exception as errors."""
        self._within("error", node)

    def visit_Call(self, node: ast.Call) -> None:
        """Classify the strings of a call by the name of its function."""
        kind = _kind_of_call(node.func)
        for argument in node.args:
            self._within(kind, argument)
        for keyword in node.keywords:
            self._within("help" if keyword.arg in HELP_ARGUMENTS else kind, keyword.value)
        self.visit(node.func)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Collect a string."""
        if isinstance(node.value, str):
            self._add_text(node, node.value, node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Collect a formatted string, with the source of its expressions in braces."""
        parts = [
            part.value if isinstance(part, ast.Constant) else "{" + ast.unparse(getattr(part, "value", part)) + "}"
            for part in node.values
        ]
        plain = [str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values]
        self._add_text(node, "".join(map(str, parts)), "".join(plain))

    def _within(self, kind: str | None, node: ast.AST) -> None:
        if kind is None:
            self.visit(node)
            return
        self._kinds.append(kind)
        (self.generic_visit if isinstance(node, ast.Raise) else self.visit)(node)
        self._kinds.pop()

    def _add_text(self, node: ast.expr, text: str, plain: str) -> None:
        """Add a string if `plain`, its text with `{…}` in place of each expression, is prose."""
        kind = self._kinds[-1] if self._kinds else "text"
        fragment = len(text.split()) < 4 or self.file.startswith(NO_PLAIN_TEXTS) or PROGRAM_TEXT.match(text)
        if kind == "text" and fragment:
            return
        if TWO_WORDS.search(plain):
            self._add(node, kind, text)

    def _add(self, node: ast.expr, kind: str, text: str) -> None:
        self.passages.append(Passage(self.file, node.lineno, kind, " ".join(text.split())))


def _kind_of_call(function: ast.expr) -> str | None:
    """Return the kind of the strings in a call of `function`; None if such a call does not determine a kind."""
    names = ast.unparse(function).split(".")
    if names[-1] in LOG_METHODS and len(names) > 1 and re.search(r"log(ger)?$|^logging$", names[-2]):
        return "log"
    if any(re.search(r"(Error|Failed|Exception|BadParameter)$", name) for name in names):
        return "error"
    if names[-1] in OUTPUT_CALLS:
        return "output"
    return None
