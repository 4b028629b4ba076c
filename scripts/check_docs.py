"""Check that everything the documentation names exists: `.venv/bin/python -m scripts.check_docs`, part of `make check`.

In README.md, CONTRIBUTING.md and the guides in docs/, the script checks links and their anchors, paths and file names,
modules after `python -m`, make targets, commands and options of `tidal`, URL paths of the api, variables named TIDAL_…,
and identifiers in the code, including events and error codes. In CHANGELOG.md, the benchmarks, the decisions
and the research notes, it checks the links only, because these documents also name things that no longer exist. It
prints each finding with file and line. It does not check links to other hosts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import typer.main
from pydantic import AliasChoices

from common.config import Settings
from common.config.environment import INTERNAL_VARIABLES, OTHER_VARIABLES
from common.config.settings import RENAMED
from scripts.document import Document, read_document
from scripts.prose import source_files
from services.api.app import create_app
from services.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ("README.md", "CONTRIBUTING.md", "docs/*.md")
LINKS_ONLY = ("CHANGELOG.md", "docs/benchmarks.md", "docs/decisions/*.md", "docs/research/*.md")
TOP_FOLDERS = (
    *(
        "common",
        "services",
        "tidal_client",
        "tests",
        "bench",
        "scripts",
        "migrations",
        "docs",
        "configs",
        "requirements",
    ),
    ".ci",
)
METHOD = re.compile(r"^(GET|POST|PUT|PATCH|DELETE|HEAD)$")
OTHER_NAMES = {
    *("server_name", "gzip_types", "worker_connections", "save_pretrained", "extra_body"),
    *("BadRequestError", "RateLimitError", "AuthenticationError", "InternalServerError"),
}
"""Names in the guides that come from nginx, openai or transformers, so they need not exist in Tidal's code."""


class Tree:
    """Everything that the documentation may name: files, make targets, settings, commands, paths of the api and
    identifiers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def targets(self) -> set[str]:
        """Return the targets of the Makefile."""
        return set(re.findall(r"^([a-z-]+):", (self.root / "Makefile").read_text(), re.MULTILINE))

    @cached_property
    def variables(self) -> set[str]:
        """Return the names of all environment variables of Tidal."""
        settings = {f"TIDAL_{name.upper()}" for name in Settings.model_fields}
        aliases = {
            choice
            for field in Settings.model_fields.values()
            if isinstance(field.validation_alias, AliasChoices)
            for choice in field.validation_alias.choices
            if isinstance(choice, str)
        }
        return settings | aliases | set(OTHER_VARIABLES) | set(INTERNAL_VARIABLES) | set(RENAMED)

    @cached_property
    def command(self) -> Any:
        """Return the top-level command `tidal`."""
        return typer.main.get_command(app)

    @cached_property
    def options(self) -> set[str]:
        """Return all long options of `tidal`, the scripts, the benchmarks and the test suite."""
        found = set(re.findall(r"[\"'](--[a-z][a-z-]+)", "\n".join(self.sources.values())))
        return found | {option for command in _commands(self.command) for option in _options(command)} | {"--help"}

    @cached_property
    def sources(self) -> dict[str, str]:
        """Return the text of all source files."""
        return source_files(self.root)

    @cached_property
    def words(self) -> set[str]:
        """Return all words in the code and the configuration: identifiers, events, error codes, keys."""
        other = [*self.root.glob("*"), *(self.root / "configs").rglob("*"), *(self.root / "docs").glob("*.yml")]
        texts = [path.read_text(encoding="utf-8") for path in other if path.is_file() and path.suffix != ".md"]
        texts += [text for name, text in self.sources.items() if "check_docs" not in name]
        return set(re.findall(r"[A-Za-z_]\w*", "\n".join(texts)))

    @cached_property
    def file_names(self) -> set[str]:
        """Return the names of all files in the root folder and in the top-level folders."""
        below = [path for folder in TOP_FOLDERS for path in (self.root / folder).rglob("*")]
        return {path.name for path in [*below, *self.root.glob("*")]}

    @cached_property
    def routes(self) -> list[tuple[set[str], re.Pattern[str]]]:
        """Return (HTTP methods, regular expression) of every path of the api."""
        document: dict[str, Any] = create_app(Settings(_env_file=None), "unused").openapi()
        return [
            ({method.upper() for method in methods}, re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)))
            for path, methods in document["paths"].items()
        ]


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _commands(below)


def _options(command: Any) -> set[str]:
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


def check_links(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield links to files and anchors that do not exist."""
    for line, target in document.links:
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        if not path.exists():
            yield line, f"the target of the link {target} does not exist"
        elif anchor and anchor not in read_document(path).anchors:
            yield line, f"{path.name} has no heading for the anchor #{anchor}"


def check_paths(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield the paths, file names and modules in inline code that do not exist."""
    for line, code in [*document.inline, *document.commands]:
        for word in re.findall(r"[\w.*{},<>/-]+", code):
            top = word.split("/")[0]
            if "/" in word and top in TOP_FOLDERS:
                patterns = [re.sub(r"<[^>]*>", "*", each).rstrip("/.,") for each in _alternatives(word)]
                if not all(any(tree.root.glob(pattern)) for pattern in patterns):
                    yield line, f"the path {word} does not exist"
            elif re.fullmatch(r"test_\w+\.py", word) and word not in tree.file_names:
                yield line, f"no file is named {word}"
        for module in re.findall(r"python3? -m ([\w.]+)", code):
            path = tree.root / module.replace(".", "/")
            if module.split(".")[0] in TOP_FOLDERS and not (path.is_dir() or path.with_suffix(".py").exists()):
                yield line, f"the module {module} does not exist"


def _alternatives(pattern: str) -> list[str]:
    """Expand a path with braces, such as `{a,b}`, to all the paths it means."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    return [path for part in found[1].split(",") for path in _alternatives(pattern.replace(found[0], part.strip(), 1))]


def check_variables(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield names that begin with TIDAL_ but are not environment variables of Tidal."""
    for line, text in document.lines:
        for name in re.findall(r"\bTIDAL_[A-Z_]*[A-Z]\b", text):
            if name not in tree.variables:
                yield line, f"no setting is named {name}"


def check_commands(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield what does not exist: make targets, commands and options of `tidal`, and options written without a
    command."""
    for line, code in [*document.inline, *document.commands]:
        for target in re.findall(r"(?:^|&& |; )make ([a-z][a-z-]*)", code):
            if target not in tree.targets:
                yield line, f"the Makefile has no target {target}"
        for command in re.split(r"&&|;|(?<=\s)\|(?=\s)", code):
            words = _split(command)
            if words[:1] == ["tidal"]:
                yield from ((line, finding) for finding in _check_tidal(words[1:], tree.command))
        if re.fullmatch(r"--[a-z][a-z-]+( .*)?", code) and (option := code.split()[0]) not in tree.options:
            yield line, f"no command has the option {option}"


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command.replace("…", " "))
    except ValueError:
        return command.split()


def _check_tidal(words: list[str], command: Any) -> Iterator[str]:
    """Yield the first subcommand in a `tidal` command that does not exist, or the options that do not exist.

    In the command, `a|b` stands for several subcommands.
    """
    place = "tidal"
    for number, word in enumerate(words):
        below = getattr(command, "commands", None)
        if below is None or word.startswith("-"):
            options = {part.split("=")[0] for part in words[number:] if re.match(r"--?[a-zA-Z]", part)}
            known = _options(command) | {"--help", "-h"}
            yield from (f"{place} has no option {option}" for option in sorted(options - known))
            return
        missing = [name for name in word.split("|") if name not in below]
        if missing:
            if not re.fullmatch(r"[A-Z<].*", word):
                yield f"{place} has no command {missing[0]}"
            return
        command, place = below[word.split("|")[0]], f"{place} {word}"


def check_routes(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield each path below /api or /v1 that the OpenAPI document lacks.

    If an HTTP method is written before a path, yield the path also if the document has it without this method.
    """
    for line, code in [*document.inline, *document.commands]:
        found = re.search(r"(?:^|[\s\"'])(?:https?://[^/\s]*)?((?:/api|/v1)(?:/[\w{}<>$./\[\]-]*)?)", code)
        if found is None or code.startswith("location "):
            continue
        path = re.sub(r"\[[^\]]*\]", "", found[1]).rstrip("/")
        path = re.sub(r"\$\w+|<[^>]*>|\{[^}]*\}", "x", path)
        methods = {word for word in re.split(r"[\s,]+", code[: found.start()]) if METHOD.match(word)}
        fitting = [known for known, pattern in tree.routes if pattern.fullmatch(path)]
        if path in ("/api", "/v1"):
            continue
        if not fitting:
            yield line, f"the api has no path {found[1]}"
        elif missing := methods - set().union(*fitting):
            yield line, f"{found[1]} has no method {', '.join(sorted(missing))}"


def check_names(document: Document, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield names in inline code (events, error codes, keys, identifiers) that do not occur in the code."""
    for line, code in document.inline:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*(\(\))?", code) or code.endswith(".py"):
            continue
        for name in code.removesuffix("()").split("."):
            special = "_" in name.strip("_") or re.search(r"[a-z][A-Z]", name)
            # Prometheus adds `_total` to the name of a counter.
            known = {name, name.removesuffix("_total")} & (tree.words | OTHER_NAMES)
            if special and not known and not name.startswith("TIDAL_") and code not in tree.file_names:
                yield line, f"`{code}`: the code has no {name}"


CHECKS = (check_links, check_paths, check_variables, check_commands, check_routes, check_names)


def findings(root: Path) -> list[str]:
    """Return one line for each name in the documentation that does not exist."""
    tree = Tree(root)
    found = []
    links_only = {path for pattern in LINKS_ONLY for path in root.glob(pattern)}
    for path in sorted({path for pattern in (*GUIDES, *LINKS_ONLY) for path in root.glob(pattern)}):
        document = read_document(path)
        for check in [check_links] if path in links_only else CHECKS:
            found += [f"{path.relative_to(root)}:{line}: {text}" for line, text in check(document, tree)]
    return found


def main() -> int:
    """Print the findings; return the exit status."""
    found = findings(ROOT)
    print("\n".join(found) or "everything that the documentation names exists")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
