"""`tidal datasets …` against a real api: upload a file and check its hash, list, show, train on it, delete it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from tests.integration.api.conftest import TOKEN, Api
from tests.unit.common.datasets.corpus_files import CASES, FILES
from tidal_client import Client

TEXT = "<|endoftext|>".join(f"The {n}th tale." for n in range(50)).encode() * 2000
Tidal = Callable[..., Result]


@pytest.fixture
def tidal(api: Api) -> Tidal:
    def run(*arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(app, [*arguments, "--url", api.url, "--token", TOKEN], input=answer)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tales.txt"
    path.write_bytes(TEXT)
    return path


def test_a_file_is_uploaded_listed_used_and_deleted(tidal: Tidal, api: Api, file: Path) -> None:
    uploaded = tidal("datasets", "upload", str(file))
    assert uploaded.exit_code == 0, uploaded.output
    assert f"tales: {len(TEXT) / 1e6:.1f} MB" in uploaded.output
    listed = json.loads(tidal("datasets", "list", "--json").stdout)
    assert [(one["name"], one["sha256"]) for one in listed] == [("tales", hashlib.sha256(TEXT).hexdigest())]
    assert "tales" in tidal("datasets", "list").stdout
    submitted = tidal("jobs", "submit", "lm-training", "--data", "tales", "--name", "on tales", "--json")
    assert json.loads(submitted.stdout)["payload"]["config"]["data"]["source"] == "tales"
    shown = tidal("datasets", "show", "tales").stdout
    assert hashlib.sha256(TEXT).hexdigest() in shown and "on tales (lm-training, pending)" in shown
    refused = tidal("datasets", "delete", "tales", "--yes")
    assert refused.exit_code == 1 and "tokenises the dataset" in str(refused.exception)
    for job in api.admin.get("/api/jobs").json()["jobs"]:
        api.admin.post(f"/api/jobs/{job['id']}/cancel")
    assert tidal("datasets", "delete", "tales", answer="n\n").exit_code == 1
    assert tidal("datasets", "delete", "tales", answer="y\n").stdout.endswith("Deleted tales.\n")
    assert json.loads(tidal("datasets", "list", "--json").stdout) == []


def test_a_name_without_a_suffix_keeps_the_format_of_the_file(tidal: Tidal, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"story": "Once."}\n'))
    wrong = tidal("datasets", "upload", str(path), "--name", "mine")
    assert wrong.exit_code == 1 and "line 1 has no field 'text'" in str(wrong.exception)
    assert tidal("datasets", "upload", str(path), "--name", "mine", "--text-field", "story").exit_code == 0
    shown = json.loads(tidal("datasets", "show", "mine", "--json").stdout)
    assert (shown["format"], shown["textField"], shown["documents"]) == ("jsonl", "story", 1)


def test_progress_counts_every_byte_up_to_the_end(api: Api, file: Path) -> None:
    progress: list[int] = []
    with Client(api.url, TOKEN) as client:
        client.upload_dataset(file, on_progress=progress.append)
    assert progress == sorted(progress) and progress[-1] == len(TEXT) and len(progress) > 3


def test_a_missing_file_is_reported(tidal: Tidal) -> None:
    assert "no such file" in str(tidal("datasets", "upload", "nowhere.txt").exception)


def test_an_invalid_name_gets_the_nearest_valid_name(tidal: Tidal, tmp_path: Path) -> None:
    for file_name, name in (
        ("My Märchen (2).txt", "My-Marchen-2"),
        ("-v1.2 .JSONL", "v1.2"),
        ("x" * 200 + ".txt.gz", "x" * 64),
    ):
        path = tmp_path / file_name
        path.write_bytes(b'{"text": "Once."}\n')
        found = tidal("datasets", "upload", str(path))
        assert found.exit_code == 0, found.output
        assert f"The dataset is called {name}; --name chooses another name." in found.stderr
        assert found.stdout.startswith(f"{name}: ")
    (path := tmp_path / "童話.txt").write_text("Once.")
    found = tidal("datasets", "upload", str(path))
    assert found.exit_code == 1 and "choose one with --name" in str(found.exception)
    assert tidal("datasets", "upload", str(path), "--name", "tales").exit_code == 0
    refused = tidal("datasets", "upload", str(path), "--name", "fairy tales")
    assert refused.exit_code == 1 and "for example 'fairy-tales'" in str(refused.exception)


def test_files_that_users_reported_end_with_an_exit_code_and_a_hint(tidal: Tidal, tmp_path: Path) -> None:
    for name in ("blank.txt", "array.jsonl", "surrogate.jsonl", "dupcols.parquet"):
        found = tidal("datasets", "upload", str(CASES / name))
        assert found.exit_code == 1 and f"{name}: {FILES[name][1]}" in str(found.exception)
    for name, message in (
        ("paper.pdf", "extract its text into a .txt file"),
        ("table.csv", "convert it to .jsonl or .parquet"),
        ("all.json", "write one JSON object per line into a .jsonl file"),
        ("notes.md", "give it a name that ends in .txt"),
        ("all.zip", "unpack it"),
        ("lines.ndjson", "give it a name that ends in .jsonl"),
        ("paper", "use --format txt or jsonl or parquet"),
    ):
        (path := tmp_path / name).write_bytes(b"%PDF-1.7\n% tiny\n")
        found = tidal("datasets", "upload", str(path))
        assert found.exit_code == 1 and message in str(found.exception), found.exception
        found = tidal("datasets", "upload", str(path), "--name", "mine", "--format", "txt")
        assert found.exit_code == 1 and "mine.txt: this is a PDF" in str(found.exception)
    assert json.loads(tidal("datasets", "list", "--json").stdout) == []
    (tmp_path / "notes.md").write_text("# Once upon a time.")
    assert tidal("datasets", "upload", str(tmp_path / "notes.md"), "--name", "mine", "--format", "txt").exit_code == 0
