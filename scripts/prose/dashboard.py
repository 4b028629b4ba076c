"""Collect the prose of a file of the dashboard, for `scripts/prose`: comments, and strings that a person reads.

The scanner recognises comments, quoted strings and template literals of JavaScript. From a template with markup, it
takes the text between tags and the values of attributes. It skips selectors and, as far as a simple pattern recognises
them, regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.prose.passage import TWO_WORDS, Passage

TOKEN = re.compile(
    r"""(?P<block>/\*.*?\*/)|(?P<line>//[^\n]*)|(?P<quoted>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<template>`)""",
    re.DOTALL,
)
REGULAR_EXPRESSION = re.compile(r"(?<=[=(,:!&|?;{\[])\s*/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[a-z]*")
CLASS_NAMES = re.compile(r'\b(?:class|d|style|viewBox|points|transform|href)=("[^"]*"|\{…\})')
TAG = re.compile(r"<(?:[^<>{]|\{…\}|=>)*>")
NO_PROSE = re.compile(r"[.#[]|width=|color-mix\(|\([a-z-]+: \w+\)$|status save-state")
"""Beginnings of strings that are selectors, CSS or class names."""
ATTRIBUTE = re.compile(r'(?<=\s)[\w-]+="([^"]*)"')


def dashboard_passages(source: str, file: str) -> list[Passage]:
    """Return the prose of one script, style sheet or HTML page."""
    if file.endswith(".html"):
        source = re.sub(r"<!--(.*?)-->", lambda found: f"/*{found[1]}*/", source, flags=re.DOTALL)
        comments = [found for found in _scan(source, file) if found.kind == "comment"]
        return sorted({*comments, *_markup(re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL), 1, file)})
    found = set(_scan(source, file))
    return sorted(each for each in found if each.kind == "comment" or not file.endswith(".css"))


def _scan(source: str, file: str) -> Iterator[Passage]:
    """Yield comments and strings; consecutive lines of `//` comments are one passage."""
    source = REGULAR_EXPRESSION.sub(lambda found: " " * len(found[0]), source)
    position, lines = 0, list[tuple[int, str]]()
    while (token := TOKEN.search(source, position)) is not None:
        line = source.count("\n", 0, token.start()) + 1
        position = token.end()
        if token.lastgroup == "line":
            alone = not source[source.rfind("\n", 0, token.start()) + 1 : token.start()].strip()
            if lines and not (alone and lines[-1][0] == line - 1):
                yield from _comment(lines, file)
                lines = []
            lines.append((line, token[0].lstrip("/ ")))
        elif token.lastgroup == "block":
            text = " ".join(re.sub(r"^\s*\*", "", part) for part in token[0][2:-2].strip("*").splitlines())
            yield from _comment([(line, text)], file)
        elif token.lastgroup == "quoted":
            yield from _text(token[0][1:-1], line, file)
        else:
            position, template, inside = _template(source, token.end())
            yield from _markup(template, line, file) if "<" in template else _text(template, line, file)
            for begin, expression in inside:
                for found in _scan(expression, file):
                    yield Passage(file, found.line + source.count("\n", 0, begin), found.kind, found.text)
    yield from _comment(lines, file)


def _template(source: str, begin: int) -> tuple[int, str, list[tuple[int, str]]]:
    """Return the end of a template literal, its text with `{…}` in place of each expression, and the start and text of
    each expression."""
    position, text, inside = begin, "", list[tuple[int, str]]()
    while position < len(source) and source[position] != "`":
        if source.startswith("${", position):
            end = _expression(source, position + 2)
            inside.append((position + 2, source[position + 2 : end]))
            text += "{…}" + "\n" * source.count("\n", position, end)
            position = end + 1
        else:
            step = 2 if source[position] == "\\" else 1
            text += source[position : position + step]
            position += step
    return position + 1, text, inside


def _expression(source: str, begin: int) -> int:
    """Return the position of the brace that closes an expression in a template literal."""
    position, depth = begin, 0
    while position < len(source):
        token = TOKEN.match(source, position)
        if token is not None:
            position = _template(source, token.end())[0] if token.lastgroup == "template" else token.end()
            continue
        if source[position] == "}":
            if depth == 0:
                return position
            depth -= 1
        depth += source[position] == "{"
        position += 1
    return position


def _markup(template: str, line: int, file: str) -> Iterator[Passage]:
    """Yield the text between tags and the attribute values of a piece of markup."""
    cleaned = CLASS_NAMES.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), template)
    for tag in TAG.finditer(cleaned):
        for attribute in ATTRIBUTE.finditer(tag[0]):
            yield from _text(attribute[1], line + cleaned.count("\n", 0, tag.start() + attribute.start()), file)
    position = 0
    tags: list[re.Match[str] | None] = [*TAG.finditer(cleaned), None]
    for end in tags:
        text = cleaned[position : end.start() if end else len(cleaned)]
        begin = position + len(text) - len(text.lstrip())
        yield from _text(text, line + cleaned.count("\n", 0, begin), file)
        position = end.end() if end else position


def _text(text: str, line: int, file: str) -> Iterator[Passage]:
    if TWO_WORDS.search(text) and not NO_PROSE.match(text) and re.search(r"[A-Z.,:…?]|\s\S+\s", text):
        yield Passage(file, line, "dashboard", " ".join(text.split()))


def _comment(lines: list[tuple[int, str]], file: str) -> Iterator[Passage]:
    text = " ".join(" ".join(text for _, text in lines).split())
    if TWO_WORDS.search(re.sub(r"@\w+\s*(\{[^}]*\})?", "", text)):
        yield Passage(file, lines[0][0], "comment", text)
