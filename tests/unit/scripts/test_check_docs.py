"""Every kind of reference in the documentation is compared with the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_docs import CHECKS, Tree
from scripts.document import read_document
from tests.paths import ROOT

TREE = Tree(ROOT)


def found_in(folder: Path, text: str) -> list[str]:
    path = folder / "guide.md"
    path.write_text(text)
    (folder / "other.md").write_text("# A heading, with words\n")
    document = read_document(path)
    return [f"{line}: {finding}" for check in CHECKS for line, finding in check(document, TREE)]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[a](other.md#nowhere)", "other.md has no heading for the anchor #nowhere"),
        ("[a](missing.md)", "the target of the link missing.md does not exist"),
        ("`common/jobs/nothing.py`", "the path common/jobs/nothing.py does not exist"),
        ("`common/{redis,nothing}`", "the path common/{redis,nothing} does not exist"),
        ("`test_nothing_at_all.py`", "no file is named test_nothing_at_all.py"),
        ("`python -m bench.nothing`", "the module bench.nothing does not exist"),
        ("`TIDAL_NOTHING`", "no setting is named TIDAL_NOTHING"),
        ("`make nothing`", "the Makefile has no target nothing"),
        ("```sh\nmake env && make nothing\n```", "the Makefile has no target nothing"),
        ("`tidal nothing`", "tidal has no command nothing"),
        ("```sh\ntidal jobs list --nothing  # --all\n```", "tidal jobs list has no option --nothing"),
        ("`tidal jobs pause|nothing`", "tidal jobs has no command nothing"),
        ("`--nothing-like-this`", "no command has the option --nothing-like-this"),
        ("`GET /api/nothing`", "the api has no path /api/nothing"),
        ("`DELETE /api/jobs`", "/api/jobs has no method DELETE"),
        ("```sh\ncurl http://127.0.0.1:4400/api/nothing\n```", "the api has no path /api/nothing"),
        ("`no_such_event`", "`no_such_event`: the code has no no_such_event"),
        ("`common.jobs.NoSuchClass`", "`common.jobs.NoSuchClass`: the code has no NoSuchClass"),
    ],
)
def test_a_reference_to_nothing_is_found(tmp_path: Path, text: str, finding: str) -> None:
    [found] = found_in(tmp_path, text)
    assert found.partition(": ")[2] == finding


def test_references_to_what_exists_are_not_findings(tmp_path: Path) -> None:
    text = """# Title
[here](#title), [there](other.md#a-heading-with-words), [a page](https://example.org/x#y)
`common/jobs/payloads.py`, `services/api/{routes,operations}/<noun>.py`, `TIDAL_HOME`, `make check`, `--fix`,
`DELETE /api/experiments/{id}[/checkpoints/{name}]`, `invalid_config`, `common.model.TransformerLM`, `n`
```sh
tidal jobs submit lm-training --config demo/lm.yaml   # a comment with --nothing
curl -s http://127.0.0.1:4400/api/jobs/<job> | head && make up
```
"""
    assert found_in(tmp_path, text) == []
