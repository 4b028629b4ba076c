"""Every `tidal …` line in README.md and docs is valid: its command, its options and its number of arguments."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from common.config import PROJECT_ROOT
from services.cli.main import app

DOCUMENTS = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
IN_A_FENCE = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?tidal (.+)$", re.MULTILINE)
IN_A_LINE = re.compile(r"`(?:\.venv/bin/)?tidal ([^`]+)`")


def commands(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [line.split("  #")[0] for block in FENCE.findall(text) for line in IN_A_FENCE.findall(block)]
    return [*fenced, *IN_A_LINE.findall(FENCE.sub("", text))]


def problem(line: str) -> str | None:
    """Return what is wrong with these arguments of `tidal`, or None."""
    command: Any = typer.main.get_command(app)
    words = [word for word in shlex.split(line.replace("<", "").replace(">", "")) if word not in ("…", "...")]
    path: list[str] = []
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return f"there is no command {name!r}" + (f" of {' '.join(path)}" if path else "")
        command = command.commands[name]
        path.append(name)
    known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    free = sum(each.param_type_name == "argument" for each in command.params)
    while words:
        name, has_value, _ = words.pop(0).partition("=")
        if not name.startswith("-"):
            free -= 1
        elif name in ("-h", "--help"):
            continue
        elif name not in known:
            return f"{' '.join(path)} has no option {name}"
        elif not getattr(known[name], "is_flag", False) and not has_value and words:
            words.pop(0)
    return "too many arguments" if free < 0 else None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documentation_exists(path: Path) -> None:
    assert {line: found for line in commands(path) if (found := problem(line))} == {}


def test_the_readme_has_commands_and_a_wrong_one_would_be_found() -> None:
    assert len(commands(DOCUMENTS[0])) >= 5
    assert problem("jobs sumbit lm-training") == "there is no command 'sumbit' of jobs"
    assert problem("jobs submit lm-training --confg x") == "jobs submit has no option --confg"
    assert problem("down now") == "too many arguments"
    assert problem("jobs submit lm-training --config demo/lm.yaml -w") is None
