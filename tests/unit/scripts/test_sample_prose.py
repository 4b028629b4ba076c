"""The prose of the code is found with its kind and line, and a sample of it depends only on the seed."""

from __future__ import annotations

import subprocess
import sys

from scripts.prose.dashboard import dashboard_passages
from scripts.prose.passage import Passage
from scripts.prose.python import python_passages
from scripts.sample_prose import sample
from tests.paths import ROOT

PYTHON = '''"""What the module does."""
LIMIT = 3
"""Largest number of jobs."""
# One comment
# of two lines.
x = 1  # noqa: E501


def run(parser):
    """Return nothing."""
    log.warning("the disk is full", free=1)
    raise ValueError(f"seed {x!r} is wrong; use a number")
    parser.add_argument("--seed", help="selects the sample")
    return refuse(ConflictError("the job has ended"))
'''
SCRIPT = """// Shows the chart
// of one run.
/** @type {number} */
const pattern = /"not a string/;
export const Page = (job) => html`<p title="Shown to a reader">
  Waits for a worker. ${job.late ? "It has waited long." : null}
</p>`;
"""


def test_python_prose_has_its_kind_and_its_line() -> None:
    found = [(each.line, each.kind, each.text) for each in python_passages(PYTHON, "common/x.py")]
    assert found == [
        (1, "docstring", "What the module does."),
        (3, "docstring", "Largest number of jobs."),
        (4, "comment", "One comment of two lines."),
        (10, "docstring", "Return nothing."),
        (11, "log", "the disk is full"),
        (12, "error", "seed {x} is wrong; use a number"),
        (13, "help", "selects the sample"),
        (14, "error", "the job has ended"),
    ]


def test_dashboard_prose_has_its_kind_and_its_line() -> None:
    found = [(each.line, each.kind, each.text) for each in dashboard_passages(SCRIPT, "x.js")]
    assert found == [
        (1, "comment", "Shows the chart of one run."),
        (5, "dashboard", "Shown to a reader"),
        (6, "dashboard", "It has waited long."),
        (6, "dashboard", "Waits for a worker. {…}"),
    ]


def test_a_sample_is_reproducible_and_has_no_passage_twice() -> None:
    found = [Passage("a.py", line, "comment", "two words") for line in range(500)]
    first = sample(found, 7, 80)
    assert first == sample(found[::-1], 7, 80) and len(set(first)) == 80
    assert first != sample(found, 8, 80)
    assert len(sample(found[:5], 7, 80)) == 5


def test_the_script_prints_the_sample_with_no_package_installed() -> None:
    command = [sys.executable, "-S", "scripts/sample_prose.py", "--seed", "1", "--count", "5"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\n5. " in printed and "\n6. " not in printed
