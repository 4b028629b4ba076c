"""The prose of the code is found with its kind and line, and a sample of it depends only on the seed."""

from __future__ import annotations

import subprocess
import sys

from scripts.prose import passages, source_files
from scripts.prose.dashboard import dashboard_passages
from scripts.prose.passage import Passage
from scripts.prose.python import python_passages
from scripts.sample_prose import in_its_place, sample
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
PLACES = '''class Store:
    limit: int
    """Most jobs."""

    @property
    def size(self, unit: int = 1) -> int:
        """Return the size.

        It is in bytes.
        """
        # All jobs,
        # not only those that run.
        found = self.all()
        if found is None:
            log.warning(
                "the store is empty"
            )
        return 1  # for the test
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


def test_program_text_is_not_prose() -> None:
    found = python_passages(
        'a = "() => document.querySelectorAll(name) and more"\n'
        'b = "COPY {} ({}) TO STDOUT"\n'
        'c = f"{x} IN ({[y for y in listed if y]})"\n'
        'd = "<path class=grid and some more>"\n',
        "common/x.py",
    )
    assert found == []
    assert dashboard_passages("a { font-family: 'Segoe UI', 'A B C'; }", "x.css") == []


def test_a_passage_is_shown_in_its_place() -> None:
    attribute, function, comment, message, beside = [
        in_its_place(each, PLACES).splitlines() for each in python_passages(PLACES, "common/x.py")
    ]
    assert attribute == [
        "common/x.py:3 (docstring of Store.limit)",
        "   | limit: int",
        '   > """Most jobs."""',
    ]
    assert function == [
        "common/x.py:7 (docstring of Store.size)",
        "   | @property",
        "   | def size(self, unit: int = 1) -> int:",
        '   > """Return the size.',
        "   >",
        "   > It is in bytes.",
        '   > """',
    ]
    assert comment[0] == "common/x.py:11 (comment in Store.size)"
    assert comment[2:] == [
        '   | """',
        "   > All jobs, not only those that run.",
        "   | found = self.all()",
        "   | if found is None:",
        "   |     log.warning(",
    ]
    assert message == [
        "common/x.py:16 (log in Store.size)",
        "   | log.warning(",
        '   |     "the store is empty"',
        "   | )",
        "   > the store is empty",
    ]
    assert beside[1:] == ["   | return 1  # for the test", "   > for the test"]


def test_a_passage_of_the_dashboard_is_shown_between_its_lines() -> None:
    comment, *_, text = [in_its_place(each, SCRIPT).splitlines() for each in dashboard_passages(SCRIPT, "x.js")]
    assert comment[1] == "   > Shows the chart of one run." and comment[2] == "   | /** @type {number} */"
    assert text[0] == "x.js:6 (dashboard in Page)" and text[-1] == "   > Waits for a worker. {…}"
    assert "   |   Waits for a worker. ${job.late" in "\n".join(text)


def test_every_passage_has_a_place() -> None:
    files = source_files()
    for each in sample(passages(files), 1, 300):
        assert in_its_place(each, files[each.file]).count("\n   > ") > 0


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
