"""Submissions over HTTP: repeated idempotency keys, slow reads of files, a dataset that is deleted meanwhile, tags."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from common.errors import InvalidInputError
from common.jobs.queue import NewJob
from services.api.operations.corpora import check_corpus
from tests.integration.api.conftest import TINY_CONFIG, Api
from tidal_client.vocabulary import JobType


def test_a_submission_looks_up_its_idempotency_key_once(api: Api) -> None:
    statements: list[str] = []
    event.listen(api.context.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    for _ in range(2):
        statements.clear()
        body = {"type": "lm-training", "config": TINY_CONFIG}
        assert api.admin.post("/api/jobs", json=body, headers={"Idempotency-Key": "k-1"}).status_code == 201
        assert sum("idempotency_key = " in statement for statement in statements) == 1, statements


def test_the_lock_of_an_idempotency_key_is_not_held_while_files_are_read(api: Api) -> None:
    folder = api.experiment_folder("exp-1")
    (folder / "model.safetensors").write_bytes(b"x")
    os.mkfifo(folder / "config.yaml")  # a reader of this pipe blocks until the test writes to it
    evaluation = {"type": "evaluation", "checkpoint": "exp-1/final"}
    key = {"Idempotency-Key": "k-1"}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(api.admin.post, "/api/jobs", json=evaluation, headers=key)
        # Opening the pipe returns once the submission has opened it for reading.
        with (folder / "config.yaml").open("wb") as pipe:
            quick = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG}, headers=key)
            pipe.write(b"data:\n  source: builtin:stories\n")
        assert quick.status_code == 201, quick.text
        # The slow submission is refused, because the quick one has used the same key with another body meanwhile.
        assert (slow.result(timeout=30).status_code, slow.result().json()["code"]) == (422, "idempotency_key_reused")


def test_a_submission_whose_dataset_is_deleted_meanwhile_is_rejected(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.admin.post("/api/datasets?name=sea.txt", content=b"The sea is wide.<|endoftext|>" * 50).is_success
    for job in api.http.get("/api/jobs").json()["jobs"]:
        api.admin.post(f"/api/jobs/{job['id']}/cancel")

    def check_and_delete(*arguments: Any, **named: Any) -> None:
        check_corpus(*arguments, **named)
        assert api.admin.delete("/api/datasets/sea").status_code == 204

    monkeypatch.setattr("services.api.operations.submission.check_corpus", check_and_delete)
    refused = api.admin.post("/api/jobs", json={"type": "lm-training", "config": {"data": {"source": "sea"}}})
    assert (refused.status_code, refused.json()["errors"][0]["location"]) == (422, "body.config.data.source")


def test_tags_have_the_same_limits_in_a_request_and_in_a_job(api: Api) -> None:
    tags = [f"{number:02}-" + "x" * 61 for number in range(20)]
    assert api.submit(tags=tags)["tags"] == tags
    for wrong, message in (
        ([*tags, "one-more"], "21 tags are more than the limit of 20"),
        (["x" * 65], "64 characters"),
    ):
        reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG, "tags": wrong})
        assert (reply.status_code, reply.json()["errors"][0]["location"][:9]) == (422, "body.tags")
        with pytest.raises(InvalidInputError, match=message):
            NewJob(type=JobType.LM_TRAINING, payload={"config": {}}, tags=tuple(wrong))
