"""Over HTTP, invalid dataset names and files that are not corpora are rejected with a location and a hint."""

from __future__ import annotations

import pytest

from tests.integration.api.conftest import TINY_CONFIG, Api
from tests.integration.api.uploads import TEXT, created, folders, upload
from tests.unit.common.datasets.corpus_files import CASES, FILES


@pytest.mark.parametrize(
    ("name", "data", "status", "message"),
    [
        ("t.txt", b"", 422, "t.txt: the file is empty"),
        ("t.txt", b"  <|endoftext|> ", 422, "no text"),
        ("t.txt", b"fine \xe9", 422, "byte 6"),
        ("t.jsonl", b'{"text": "a"}\n{"txet": "b"}', 422, "line 2 has no field 'text'"),
        ("t.jsonl", b'{"text": "a"}\n{oops', 422, "line 2 is not valid JSON"),
        ("t.parquet", b"PAR1 not really", 422, "not a readable parquet file"),
        ("t", TEXT, 422, "format=txt or jsonl or parquet"),
        ("t.csv", TEXT, 422, "a .csv file cannot be a corpus; use .txt, .jsonl, .parquet; convert it"),
        ("a/b.txt", TEXT, 422, "cannot be a dataset's name"),
        ("../t.txt", TEXT, 422, "cannot be a dataset's name"),
        (".txt", TEXT, 422, "cannot be a dataset's name"),
        ("my stories.txt", TEXT, 422, "for example 'my-stories'"),
        ("x" * 300 + ".txt", TEXT, 422, "at most 200 characters"),
        ("é" * 150 + ".txt", TEXT, 422, f"for example '{'e' * 64}'"),
        ("😀\u202e\n.txt", TEXT, 422, "cannot be a dataset's name"),
        ("a\0b.txt", TEXT, 422, "cannot be a dataset's name"),
        ("t.pdf", b"%PDF-1.7\n% tiny\n", 422, "extract its text into a .txt file"),
        ("t.txt", b"%PDF-1.7\n% tiny\n", 422, "t.txt: this is a PDF, not text"),
    ],
)
def test_an_unusable_upload_is_rejected_and_leaves_no_files(
    api: Api, name: str, data: bytes, status: int, message: str
) -> None:
    reply = upload(api, data, name=name)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert message in reply.json()["detail"] and reply.json()["errors"]
    assert folders(api) == [] and api.http.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize("name", ["t.pdf", "t.md", "t.json", "t.csv", "t.zip"])
def test_a_given_format_does_not_make_another_file_acceptable(api: Api, name: str) -> None:
    reply = upload(api, b"%PDF-1.7\n% tiny\n", name=name, format="txt")
    assert reply.status_code == 422 and reply.json()["errors"][0]["location"] == "query.name"
    reply = upload(api, b"%PDF-1.7\n% tiny\n", name="t", format="txt")
    assert reply.status_code == 422 and "this is a PDF" in reply.json()["detail"]
    assert folders(api) == []


def test_files_that_users_reported_get_the_expected_error(api: Api) -> None:
    """tests/unit/common/datasets/test_one_reader.py checks that a training reports the same errors."""
    for name in ("plain.txt", "cr_in_json.jsonl", "polars138.parquet"):
        assert created(api, (CASES / name).read_bytes(), name=name)["dataset"]["documents"] == 60
    for name in ("blank.txt", "array.jsonl", "surrogate.jsonl", "dupcols.parquet"):
        reply = upload(api, (CASES / name).read_bytes(), name=name)
        expected = FILES[name][1]
        assert (reply.status_code, isinstance(expected, str)) == (422, True)
        assert reply.json()["detail"].startswith(f"{name}: ") and str(expected) in reply.json()["detail"]


@pytest.mark.parametrize(
    "source",
    ["x" * 300, "x" * 300 + ".txt", "é" * 130 + ".jsonl", f"owner/{'x' * 200}", "a\0b.txt", "a b", "t.pdf", "./t.csv",
     "x.zip.gz", "builtin:poems", "owner/name/more", ""],
)  # fmt: skip
@pytest.mark.parametrize("field", ["source", "validation_source"])
def test_an_impossible_name_of_a_corpus_is_rejected_with_its_location(api: Api, source: str, field: str) -> None:
    data = {"source": "builtin:stories", field: source}
    reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": {**TINY_CONFIG, "data": data}})
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["location"] == f"body.config.data.{field}"
    assert len(reply.json()["detail"]) < 600
