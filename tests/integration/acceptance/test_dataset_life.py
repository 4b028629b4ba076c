"""The life of a dataset in the real system: upload, tokenisation by a worker, a training that names it, deletion."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.data import load_tokenizer
from tests.integration.acceptance.stack import TINY_LM, Stack

WORDS = ["the", "a", "sea", "tide", "boat", "moon", "gull", "rope", "sand", "and", "of", "under", "rose", "fell", "old"]


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    with Stack(database_url, redis_url, tmp_path) as running:
        running.start_control_plane()
        yield running


def stories(megabytes: float) -> list[str]:
    """Return different texts of about 400 characters each, `megabytes` MiB in total."""
    pick = random.Random(7)
    count = int(megabytes * 2**20 / 420)
    return [f"Tale {n}: {' '.join(pick.choices(WORDS, k=85))}." for n in range(count)]


def test_five_megabytes_are_tokenised_and_trained_on_by_their_name(stack: Stack) -> None:
    texts = stories(5)
    data = "<|endoftext|>".join(texts).encode()
    uploaded = stack.http.post("/api/datasets?name=tales.txt", content=iter([data[:1000], data[1000:]]))
    assert uploaded.status_code == 201, uploaded.text
    job = uploaded.json()["job"]
    # This job starts while another job tokenises the same dataset. One of them builds the token cache, and the other
    # one waits.
    config: dict[str, Any] = {**TINY_LM, "data": {"source": "tales"}}
    training = stack.submit(config=config)
    stack.start("first", "worker")
    stack.start("second", "worker")
    stack.wait_status(job["id"], "completed", 100)
    ready = stack.http.get("/api/datasets/tales").json()
    assert ready["status"] == "ready" and ready["documents"] == len(texts)
    expected = sum(len(encoded) + 1 for encoded in load_tokenizer().encode_batch(texts))
    assert ready["tokens"] == expected
    assert 0.05 < ready["validationTokens"] / expected < 0.15
    trained = stack.wait_status(training["id"], "completed", 100)
    assert trained["progress"]["step"] == 30
    corpus = next(event for event in stack.events(training["id"]) if event["event"] == "corpus")
    assert corpus["details"]["train_tokens"] == expected - ready["validationTokens"]
    assert [use["jobId"] for use in ready["uses"]] == [training["id"]]
    caches = stack.folder / "data" / "cache"
    assert len([path for path in caches.iterdir() if path.is_dir()]) == 1
    assert stack.http.delete("/api/datasets/tales").status_code == 204
    assert not [path for path in caches.iterdir() if path.is_dir()]


def test_a_dataset_too_small_to_train_on_fails_with_the_reason(stack: Stack) -> None:
    stack.start("worker", "worker")
    job = stack.http.post("/api/datasets?name=one.txt", content=b"a").json()["job"]
    stack.wait_status(job["id"], "failed", 60)
    shown = stack.http.get("/api/datasets/one").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "invalid_data")
    assert "both need at least 2" in shown["error"]["message"]
