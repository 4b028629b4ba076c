"""Datasets over HTTP: uploads are streamed and stored completely or not at all; datasets are listed, used and deleted
by name."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.datasets import TokenRecord
from common.db import Job
from common.jobs.queue import claim_job, fail_job, transition
from common.jobs.retry import Fault
from tests.integration.api.conftest import BEARER, TINY_CONFIG, Api, RunApi
from tests.integration.api.uploads import TEXT, created, folders, upload
from tidal_client.vocabulary import JobStatus


def tokenised(api: Api, name: str = "tales") -> None:
    """Create the token cache of the dataset, as a trainer does."""
    store = api.context.datasets
    manifest = store.find(name)
    record = TokenRecord(
        sha256=manifest.sha256, train_tokens=90, validation_tokens=10, documents=100, digest="d",
        created_at=manifest.created_at,
    )  # fmt: skip
    store.record_tokens(name, record)


def take(api: Api) -> Job:
    """Claim the next job and set it to running, as a worker does."""
    with api.context.sessions.begin() as session:
        job = claim_job(session, "training", "worker-1", api.settings)
        assert job is not None
        transition(session, job.id, job.attempt, JobStatus.STARTING, event="starting")
        transition(session, job.id, job.attempt, JobStatus.RUNNING, event="running")
        session.expunge(job)
        return job


def test_an_upload_is_a_dataset_with_the_job_that_tokenises_it(api: Api) -> None:
    reply = upload(api)
    assert (reply.status_code, reply.headers["location"]) == (201, "/api/datasets/tales")
    dataset, job = reply.json()["dataset"], reply.json()["job"]
    assert (dataset["name"], dataset["status"], dataset["format"]) == ("tales", "uploaded", "txt")
    assert (dataset["sha256"], dataset["sizeBytes"]) == (hashlib.sha256(TEXT).hexdigest(), len(TEXT))
    assert (dataset["documents"], dataset["tokens"], dataset["jobId"]) == (100, None, job["id"])
    assert (job["type"], job["status"], job["name"]) == ("dataset", "pending", "tales")
    assert api.http.get("/api/datasets").json()["datasets"] == [dataset]
    assert api.http.get("/api/datasets/tales").json() == {**dataset, "uses": []}
    assert api.http.get(f"/api/experiments/{job['experimentId']}").json()["type"] == "dataset"
    assert (api.settings.data_dir / "datasets/tales/text.txt").read_bytes() == TEXT


def test_the_status_follows_the_job_and_the_tokens(api: Api) -> None:
    created(api)
    job = take(api)
    shown = api.http.get("/api/datasets/tales").json()
    assert (shown["status"], shown["jobStatus"]) == ("tokenising", "running")
    with api.context.sessions.begin() as session:
        fail_job(session, job.id, job.attempt, Fault.USER_ERROR, "both need at least 2 tokens", code="invalid_data")
    shown = api.http.get("/api/datasets/tales").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "invalid_data")
    again = upload(api)
    assert again.status_code == 200 and again.json()["job"]["id"] != job.id
    tokenised(api)
    shown = api.http.get("/api/datasets/tales").json()
    assert (shown["status"], shown["tokens"], shown["validationTokens"], shown["error"]) == ("ready", 100, 10, None)
    assert upload(api).json()["dataset"]["status"] == "ready"


def test_a_repeated_upload_creates_no_second_dataset_and_no_second_job(api: Api) -> None:
    first = created(api)
    again = upload(api, gzip.compress(TEXT), name="tales", format="txt")
    assert again.status_code == 200
    assert again.json() == first and len(api.http.get("/api/jobs").json()["jobs"]) == 1
    other = upload(api, b"Something else.")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert "another dataset 'tales'" in other.json()["detail"]
    assert folders(api) == ["tales"]


def slowly(data: bytes, pieces: int) -> Iterator[bytes]:
    """Yield blocks whose size differs from all block sizes of the server."""
    size = len(data) // pieces + 1
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_a_large_upload_is_written_while_it_arrives(api: Api) -> None:
    line = json.dumps({"text": "A line of a story that goes on and on. " * 5}).encode() + b"\n"
    data = line * (5 * 2**20 // len(line))
    half_way = threading.Event()

    def body() -> Iterator[bytes]:
        for number, block in enumerate(slowly(data, 60)):
            if number == 40:
                until = time.monotonic() + 20
                while not any(
                    path.stat().st_size > 2**20 for path in api.settings.data_dir.glob("datasets/.inc*/text*")
                ):
                    assert time.monotonic() < until, "nothing was written while the client was still sending"
                half_way.set()
            yield block

    dataset = created(api, body(), name="big.jsonl")["dataset"]
    assert half_way.is_set()
    assert (dataset["sha256"], dataset["sizeBytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert dataset["documents"] == data.count(b"\n") and folders(api) == ["big"]


def test_a_parquet_column_is_named_by_text_field(api: Api, tmp_path: Path) -> None:
    pq.write_table(pa.table({"story": ["one", "two"], "n": [1, 2]}), tmp_path / "s.parquet")
    data = (tmp_path / "s.parquet").read_bytes()
    wrong = upload(api, data, name="s.parquet")
    assert wrong.status_code == 422 and "no column 'text' (it has story, n; text is in story)" in wrong.json()["detail"]
    dataset = created(api, data, name="s.parquet", textField="story")["dataset"]
    assert (dataset["textField"], dataset["documents"]) == ("story", 2)


def test_an_invalid_first_line_of_a_large_upload_gets_its_error(api: Api) -> None:
    reply = upload(api, slowly(b"{oops\n" + b'{"text": "fine"}\n' * 600_000, 100), name="t.jsonl")
    assert reply.status_code == 422 and "line 1 is not valid JSON" in reply.json()["detail"]
    assert folders(api) == []


def test_the_size_limit_is_a_setting_and_counts_decompressed_bytes(serve: RunApi) -> None:
    with serve(dataset_max_mb=3) as api:
        assert created(api, b"a" * (2 * 2**20), name="two.txt")["dataset"]["sizeBytes"] == 2 * 2**20
        for body in (b"a" * (4 * 2**20), slowly(b"a" * (4 * 2**20), 9), gzip.compress(b"a" * (4 * 2**20))):
            reply = upload(api, body, name="four.txt")
            assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large"), reply.text
            assert "TIDAL_DATASET_MAX_MB" in reply.json()["detail"]
        assert folders(api) == ["two"]
        assert api.admin.post("/api/jobs", content=b" " * (2 * 2**20)).status_code == 413


def test_no_upload_without_the_token(api: Api) -> None:
    created(api)
    for call in (
        lambda: api.http.post("/api/datasets", params={"name": "x.txt"}, content=TEXT),
        lambda: api.http.delete("/api/datasets/tales"),
    ):
        assert call().status_code == 401
    assert folders(api) == ["tales"]


def test_datasets_need_a_token_if_reads_are_closed(serve: RunApi) -> None:
    with serve(require_auth_for_reads=True) as api:
        created(api)
        assert api.http.get("/api/datasets").status_code == api.http.get("/api/datasets/tales").status_code == 401
        assert api.admin.get("/api/datasets/tales").status_code == 200


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_an_upload_whose_client_disconnects_leaves_no_files(api: Api, framing: str) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /api/datasets?name=half.txt HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n"
        client.sendall(f"{head}Authorization: {BEARER['Authorization']}\r\n\r\n".encode())
        block = b"x" * 1_500_000
        client.sendall(b"%x\r\n%b\r\n" % (len(block), block) if "chunked" in framing else block)
        await_folders(api, 1)
    await_folders(api, 0)
    assert api.http.get("/api/datasets").json() == {"datasets": []}
    assert api.http.get("/api/jobs").json()["jobs"] == []


def await_folders(api: Api, count: int) -> None:
    until = time.monotonic() + 20
    while len(folders(api)) != count:
        assert time.monotonic() < until, folders(api)


def test_files_of_a_killed_api_are_removed_at_the_next_start(serve: RunApi) -> None:
    with serve() as api:
        created(api)
        for name in (".incoming-dead", ".deleted-dead"):
            (api.settings.data_dir / "datasets" / name).mkdir()
    with serve() as api:
        assert folders(api) == ["tales"]


def test_a_training_that_names_a_dataset_is_listed_as_its_user(api: Api) -> None:
    created(api)
    config = {**TINY_CONFIG, "data": {"source": "tales"}}
    job = api.submit(config=config, name="on tales")
    assert job["payload"]["config"]["data"]["source"] == "tales"
    [use] = api.http.get("/api/datasets/tales").json()["uses"]
    assert (use["experimentId"], use["jobId"], use["name"]) == (job["experimentId"], job["id"], "on tales")
    assert (use["type"], use["status"]) == ("lm-training", "pending")
    assert api.http.get("/api/datasets").json()["datasets"][0]["usedBy"] == 1


def test_each_of_several_corpora_counts_as_used_and_cannot_be_deleted(api: Api) -> None:
    job = created(api)["job"]
    api.admin.post(f"/api/jobs/{job['id']}/cancel")
    sources = [{"source": "builtin:stories", "weight": 3}, {"source": "mine.txt", "validation_source": "tales"}]
    training = api.submit(config={**TINY_CONFIG, "data": {"sources": sources}}, name="a mixture")
    stored = training["payload"]["config"]["data"]
    assert stored["source"] is None and [entry["weight"] for entry in stored["sources"]] == [3.0, 1.0]
    [use] = api.http.get("/api/datasets/tales").json()["uses"]
    assert use["jobId"] == training["id"]
    assert api.http.get("/api/datasets").json()["datasets"][0]["usedBy"] == 1
    refused = api.admin.delete("/api/datasets/tales")
    assert refused.status_code == 409 and f"job {training['id']} (pending) needs" in refused.json()["detail"]
    body = {"type": "lm-training", "config": {**TINY_CONFIG, "data": {"sources": [{"source": "tale"}]}}}
    reply = api.admin.post("/api/jobs", json=body)
    assert reply.json()["errors"][0]["location"] == "body.config.data.sources.0.source"


def test_an_unknown_dataset_is_rejected_with_the_nearest_name(api: Api) -> None:
    created(api)
    body = {"type": "lm-training", "config": {**TINY_CONFIG, "data": {"source": "tale"}}}
    reply = api.admin.post("/api/jobs", json=body)
    assert reply.status_code == 422 and reply.json()["errors"][0]["location"] == "body.config.data.source"
    assert "did you mean 'tales'" in reply.json()["detail"]


def test_a_dataset_job_can_be_submitted_again(api: Api) -> None:
    created(api)
    body = {"type": "dataset", "data": {"source": "tales", "validation_fraction": 0.2}}
    job = api.admin.post("/api/jobs", json=body).json()
    assert job["payload"]["sha256"] == hashlib.sha256(TEXT).hexdigest()
    for bad, location in (
        ({}, "body.data.source"),
        ({"config": {}}, "body.config"),
        ({"checkpoint": "a/b"}, "body.checkpoint"),
    ):
        reply = api.admin.post("/api/jobs", json={"type": "dataset", **bad})
        assert (reply.status_code, reply.json()["errors"][0]["location"]) == (422, location)


def test_deletion_removes_text_and_tokens_unless_a_live_job_needs_them(api: Api) -> None:
    job = created(api)["job"]
    refused = api.admin.delete("/api/datasets/tales")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert f"job {job['id']} (pending) tokenises the dataset" in refused.json()["detail"]
    api.admin.post(f"/api/jobs/{job['id']}/cancel")
    training = api.submit(config={**TINY_CONFIG, "data": {"source": "builtin:stories", "validation_source": "tales"}})
    refused = api.admin.delete("/api/datasets/tales")
    assert refused.status_code == 409
    assert f"job {training['id']} (pending) needs the dataset" in refused.json()["detail"]
    api.admin.post(f"/api/jobs/{training['id']}/cancel")
    assert api.admin.delete("/api/datasets/tales").status_code == 204
    assert folders(api) == [] and api.http.get("/api/datasets/tales").status_code == 404
    assert api.admin.delete("/api/datasets/tales").status_code == 404
    assert api.admin.get(f"/api/jobs/{training['id']}").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fetc", "%2e%2e", ".incoming-1", "a%5Cb", "a%00b", "x" * 300, "%F0%9F%98%80" * 90, "%ED%A0%80", "a%20b"],
)
def test_no_name_leads_out_of_the_folder(api: Api, name: str) -> None:
    created(api)
    for method in ("GET", "DELETE"):
        assert api.admin.request(method, f"/api/datasets/{name}").status_code in (404, 405, 422)
    assert folders(api) == ["tales"] and api.settings.data_dir.is_dir()


def test_below_a_sub_path_uploads_are_exempt_from_the_body_limit(serve: RunApi) -> None:
    with serve(root_path="/tidal") as api:
        reply = api.admin.post("/tidal/api/datasets", params={"name": "t.txt"}, content=b"a" * (2 * 2**20))
        assert (reply.status_code, reply.headers["location"]) == (201, "/tidal/api/datasets/t")
