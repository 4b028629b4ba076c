"""The example in CONTRIBUTING.md matches the code: the diff that it shows can be applied."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.paths import ROOT


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_example_can_be_applied() -> None:
    [example] = re.findall(r"^```diff\n(.*?\n)```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
    command = ["git", "apply", "--check", "-"]
    checked = subprocess.run(command, cwd=ROOT, input=example, capture_output=True, text=True)
    assert checked.returncode == 0, f"adapt the example in CONTRIBUTING.md: {checked.stderr}"
