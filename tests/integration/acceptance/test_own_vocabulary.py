"""The real api and generator serve models with different vocabularies in turn, and GPT-2's files cannot be read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager, save_model
from common.checkpoint.model_file import model_meta
from common.model import TransformerLM
from tests.integration.acceptance.stack import ROOT, Stack
from tests.own_vocabulary import own_model, own_vocabulary, package_without_gpt2

FILE, FOLDER = "exp-1/model.safetensors", "exp-2/checkpoints/step-000000007"
PROMPT = "Once upon a time — naïve 猫"


@pytest.fixture(scope="module")
def models() -> dict[str, TransformerLM]:
    """Return two models of equal size whose vocabularies differ."""
    return {FILE: own_model(own_vocabulary()), FOLDER: own_model(own_vocabulary(first_story=40), seed=1)}


@pytest.fixture
def stack(models: dict[str, TransformerLM], database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Store one model as a file and the other one as a training checkpoint, and start the api and a generator."""
    (tmp_path / "experiments" / "exp-1").mkdir(parents=True)
    save_model(models[FILE], tmp_path / "experiments" / FILE)
    model = models[FOLDER]
    CheckpointManager(tmp_path / "experiments" / "exp-2" / "checkpoints", keep_last=1).save(
        7, model.state_dict(), {"step": 7}, meta=model_meta(model.config, model.vocabulary, gates_trained=False),
        vocabulary=model.vocabulary,
    )  # fmt: skip
    with Stack(database_url, redis_url, tmp_path) as stack:
        stack.environment["PYTHONPATH"] = os.pathsep.join([str(package_without_gpt2(tmp_path)), str(ROOT)])
        stack.start("generator", "generator", TIDAL_GENERATOR_THREADS="1", TIDAL_GENERATOR_DEVICE="cpu")
        stack.start_control_plane()
        yield stack


def test_two_vocabularies_are_served_in_turn(stack: Stack, models: dict[str, TransformerLM]) -> None:
    stack.http.timeout = 60

    def complete(reference: str, **fields: Any) -> dict[str, Any]:
        reply = stack.http.post("/v1/completions", json={"model": reference, "seed": 5, **fields})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    for reference in (FILE, FOLDER, FILE):
        model = models[reference]
        vocabulary, encoding = model.vocabulary, model.vocabulary.encoding
        ids = encoding.encode_ordinary(PROMPT)
        with torch.no_grad():
            expected = model(torch.tensor([ids]))[0].log_softmax(1)

        # The scores of a prompt, given as text or as token ids
        for prompt in (PROMPT, ids):
            reply = complete(reference, prompt=prompt, max_tokens=0, echo=True, logprobs=1)
            [choice] = reply["choices"]
            assert choice["text"] == PROMPT and reply["usage"]["prompt_tokens"] == len(ids)
            found = choice["logprobs"]["token_logprobs"]
            wanted = [expected[at, token].item() for at, token in enumerate(ids[1:])]
            assert found[0] is None and found[1:] == pytest.approx(wanted, abs=1e-3)
            shown = [token for token in choice["logprobs"]["tokens"] if not token.startswith("bytes:")]
            assert [encoding.encode_ordinary(token) for token in shown] == [
                [token] for token in ids if encoding.decode_single_token_bytes(token).isascii()
            ]

        # A stop string, with and without a stream
        text = complete(reference, prompt=PROMPT, max_tokens=12)["choices"][0]["text"]
        stop = text[4:7]
        stopped = complete(reference, prompt=PROMPT, max_tokens=12, stop=stop)["choices"][0]
        assert (stopped["text"], stopped["finish_reason"]) == (text[: text.index(stop)], "stop")

        # The bias selects a token by its id in this vocabulary.
        word = encoding.encode_ordinary(" the")
        assert len(word) == 1
        forced = complete(reference, prompt="a", max_tokens=3, temperature=0, logit_bias={str(word[0]): 100})
        assert forced["choices"][0]["text"] == " the the the"
        for fields in ({"prompt": [vocabulary.size]}, {"prompt": "a", "logit_bias": {str(vocabulary.size): 1}}):
            refused = stack.http.post("/v1/completions", json={"model": reference, **fields})
            assert refused.status_code == 400, refused.text
            assert "the model's vocabulary is 0..399" in refused.json()["error"]["message"]

        # An analysis through the generator
        asked = {"checkpoint": reference, "kind": "single", "prompts": ["the cat"], "gatingMode": "random", "seed": 3}
        reply = stack.http.post("/api/analyze-trajectories", json={**asked, "maxTokens": 6})
        assert reply.status_code == 200, reply.text
        [sample] = reply.json()["trajectories"][0]["samples"]
        assert sample["text"] == encoding.decode(sample["tokenIds"])

        shown = stack.http.get(f"/v1/models/{reference}").json()["vocabulary"]
        assert shown == vocabulary.describe() and math.isfinite(expected.sum().item())
