"""Search the tree for words that docs/glossary.md replaces by terms of the field, and print each with file and line.

python -m scripts.check_words [PATH PREFIX …]

Every line of code, documentation and configuration is searched, including comments, strings and identifiers.
Identifiers are split at underscores and capitals. ALLOWED lists the contexts in which such a word is right, each with
the reason. The exit status is 1 if a word is found. Words that are right more often than wrong, such as "row" (SQL) and
"task" (Celery), are not searched for.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("common", "services", "tidal_client", "tests", "bench", "scripts", "migrations", "docs", "configs", ".ci")
SUFFIXES = {".py", ".js", ".ts", ".css", ".html", ".md", ".yaml", ".yml", ".mako", ".toml", ".ini", ""}
TOP_FILES = (
    *("README.md", "CONTRIBUTING.md", "AGENTS.md", "Makefile", "pyproject.toml", "docker-compose.yml", ".env.example"),
    *("Dockerfile", "Dockerfile.gpu", "alembic.ini"),
)
LEFT_OUT = ("docs/glossary.md", "docs/decisions/0019-", "scripts/check_words.py", "tests/unit/scripts/test_check_words")
"""Beginnings of the paths of files that are not searched, because these files are about the words themselves. `files`
also skips vendored files and test data."""
WORD_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")


class Word(NamedTuple):
    """Words to replace, and what to write instead."""

    pattern: str
    """Regular expression that matches a whole word, in any case."""
    instead: str


WORDS = (
    Word("wish(es|ed)?", "stop request, desired state"),
    Word("doorbells?|rung", "notification, notify"),
    Word("tell|tells|told|telling", "report, return, log, send, encode"),
    Word("say|says|said", "report, return, log, send, encode"),
    Word("nobody", "what is missing: no client, no worker"),
    Word("gone", "disconnected, missing, removed, unavailable"),
    Word("(?<!in[ -])flights?", "in-flight step"),
    Word("draw|draws|drew|drawn", "sample"),
    Word("hormones?|creativity", "modulation, gate"),
    Word("lam", "gae_lambda"),
    Word("pg loss", "policy_loss"),
    Word("owner ids?", "attempt, lease owner"),
    Word("watchdogs?", "heartbeat (worker), stale (lease expired), reaper"),
    Word("inference loops?", "prefill, decode"),
    Word("stop flags?", "stop request, desired state"),
)
ANY_WORD = re.compile(rf"(?i)\b({'|'.join(word.pattern for word in WORDS)})\b")
IDENTIFIERS = {"its": "a noun", "theirs": "a noun", "_ill": "what the function does", "_well": "what the function does"}
"""Names that variables and functions must not have, and what to name them after instead."""


class Allowed(NamedTuple):
    """A context in which a word of WORDS is right, and the reason."""

    files: str
    """Regular expression that matches the paths of the files."""
    line: str
    """Regular expression that matches a part of the line."""
    reason: str


ALLOWED = (
    Allowed(
        r"services/dashboard/|services/api/operations/report_figures|services/cli/commands/reports|common/reports/"
        r"|tests/browser/|tests/unit/common/reports/|bench/dashboard|docs/(reports|dashboard|benchmarks)\.md"
        r"|docs/decisions/(0059|0060|0062)-",
        r"(?i)draw",
        "charts and icons are drawn",
    ),
    Allowed("common/data/stor", "", "sentences of the built-in corpus"),
    Allowed("tests/integration/worker/test_flower", r"\?draw=", "a parameter of tables in Flower, Celery's monitor"),
    Allowed("common/checkpoint/", r"creativity", "the name of an input of the gate in the original project"),
    Allowed(
        "(migrations|common/(db|jobs|redis)|services/worker|tests)/",
        r"[\"'](doorbell|wish)[\"']|stopped_by_wish|tidal[.:](training\.doorbell|wishes)",
        "stored values and names: in the outbox, in event details, of a constraint, a Celery task and a Redis channel",
    ),
    Allowed("", r"\bfile\.tell\(\)", "a method of file objects"),
    Allowed("", r"\.tell\(\)", "a method of files"),
    Allowed(r"services/local/|tests/", r"`nobody`|getpwnam|~nobody", "an account of the operating system"),
    Allowed("", r"Mom said to", "a default prompt of the configuration"),
    Allowed("docs/benchmarks", "", "a record of measurements, with the names of that time"),
    Allowed("", r"\b410\b|HTTPStatus\.GONE", "the name of the HTTP status 410"),
    Allowed("", r"(?i)TIDAL_WISH_POLL_SECONDS|wish_poll_seconds", "the former name of a setting, still accepted"),
)


class Hit(NamedTuple):
    """A word of WORDS that was found, and its place."""

    file: str
    line: int
    word: str
    instead: str
    text: str


def files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file to search."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.is_file()]
    for path in [*(root / name for name in TOP_FILES if (root / name).exists()), *paths]:
        name = path.relative_to(root).as_posix()
        skipped = name.startswith((*LEFT_OUT, "tests/data/")) or re.search(r"/(vendor|node_modules|__pycache__)/", name)
        if path.suffix in SUFFIXES and not skipped:
            yield name, path.read_text(encoding="utf-8")


def hits(file: str, text: str) -> Iterator[Hit]:
    """Yield the words of WORDS in one file, except in the contexts that ALLOWED lists."""
    contexts = [re.compile(each.line) for each in ALLOWED if re.match(each.files, file)]
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        for found in ANY_WORD.finditer(WORD_PARTS.sub(" ", line)):
            if not any(context.search(line) for context in contexts):
                word = next(word for word in WORDS if re.fullmatch(rf"(?i).*?({word.pattern})", found[0]))
                yield Hit(file, number, found[0], word.instead, line.strip())
    if file.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in IDENTIFIERS:
                line = lines[token.start[0] - 1].strip()
                yield Hit(file, token.start[0], token.string, IDENTIFIERS[token.string], line)


def main(prefixes: list[str]) -> int:
    """Print the words found in files whose path begins with one of the prefixes; without prefixes, those in all
    files."""
    count = 0
    for file, text in files(ROOT):
        for hit in hits(file, text) if not prefixes or file.startswith(tuple(prefixes)) else ():
            print(f"{hit.file}:{hit.line}: {hit.word!r}, use {hit.instead}: {hit.text[:100]}")
            count += 1
    if count:
        print(
            f"{count} words found that docs/glossary.md replaces; "
            "use the terms of the glossary, or add the context to ALLOWED"
        )
    return int(count > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
