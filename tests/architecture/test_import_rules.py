"""The import rules in pyproject.toml are followed, no file is too long, and every module has a docstring."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.paths import ROOT

MAX_LINES = 400


def test_no_import_crosses_a_boundary() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    checked = subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_file_is_too_long() -> None:
    folders = ("common", "services", "tidal_client", "migrations", "bench", "scripts", "tests")
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text().count("\n")) > MAX_LINES
    }
    assert not long, f"split these: {long}"


@pytest.mark.parametrize("folder", ["common", "services", "tidal_client"])
def test_every_module_has_a_docstring(folder: str) -> None:
    undocumented = [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if (text := path.read_text().strip()) and not text.startswith(('"""', 'r"""'))
    ]
    assert not undocumented, f"add a module docstring to {undocumented}"


def test_no_test_module_imports_from_another() -> None:
    imports = {
        f"{path.relative_to(ROOT)}: {line}"
        for path in (ROOT / "tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) tests\.([a-z_0-9]+\.)*(test_|[a-z_0-9]+ import (.*, )?test_)", line)
    }
    assert not imports, f"move what they share into a helper module: {imports}"
