"""`POST /api/generate` with the real engine: the reply contains all fields that the specification requires."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.controller import GatingPolicy, decoding_parameters, load_policy
from common.data import load_tokenizer
from common.generation import generate
from common.model import TransformerLM
from tests.integration.api.conftest import Api, Events
from tests.integration.api.openai_fixtures import MODEL, Generator
from tests.integration.api.openai_fixtures import generator as generator
from tests.integration.api.openai_fixtures import model as model

PER_TOKEN = {
    "index", "id", "text", "modulation", "temperature", "topK", "topP", "repetitionPenalty", "logProb", "entropy",
    "samplingEntropy",
}  # fmt: skip
EFFECTIVE = {
    "gatingMode", "maxTokens", "seed", "modulation", "temperature", "topK", "topP", "repetitionPenalty",
    "presencePenalty", "frequencyPenalty", "modulationConfig", "gatesFed", "backend",
}  # fmt: skip


def test_the_reply_is_complete_in_every_mode(api: Api, generator: Generator, model: TransformerLM) -> None:
    path = api.experiment_folder("exp-2") / "rl_checkpoint_final.pth"
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, path)
    for mode in ("none", "fixed", "random", "learned"):
        body: dict[str, Any] = {"checkpoint": MODEL, "prompt": "Once upon", "maxTokens": 6, "seed": 3}
        body |= {"gatingMode": mode, "modulation": 0.25}
        if mode == "learned":
            body["rlCheckpoint"] = "exp-2/final"
        reply = api.admin.post("/api/generate", json=body).json()
        policy = load_policy(path) if mode == "learned" else None
        wanted = generate(model, "Once upon", max_tokens=6, seed=3, gating_mode=mode, modulation=0.25, policy=policy)
        assert (reply["text"], reply["tokensGenerated"], reply["finishReason"]) == (wanted.text, 6, "length")
        assert (reply["truncated"], reply["promptTokens"]) == (0, 2)
        assert reply["elapsedMs"] > 0
        assert set(reply["effective"]) == EFFECTIVE
        assert (reply["effective"]["gatingMode"], reply["effective"]["seed"]) == (mode, 3)
        assert (reply["effective"]["modulationConfig"] is None) == (mode == "none")
        for token, step in zip(reply["trajectory"], wanted.trajectory, strict=True):
            assert set(token) == PER_TOKEN
            assert (token["id"], token["text"]) == (step.token_id, step.text)
            assert token["logProb"] == pytest.approx(step.log_prob, abs=1e-3)
            assert token["entropy"] == pytest.approx(step.entropy, abs=1e-3)
            if mode == "none":
                assert (token["modulation"], token["temperature"]) == (None, 0.8)
                assert (token["topK"], token["topP"], token["repetitionPenalty"]) == (50, 1.0, 1.2)
            else:
                parameters = decoding_parameters(token["modulation"])
                assert token["temperature"] == pytest.approx(parameters.temperature, abs=1e-4)
                assert token["repetitionPenalty"] == pytest.approx(parameters.repetition_penalty, abs=1e-4)
                assert abs(token["topK"] - (parameters.top_k or 0)) <= 1
                assert token["topP"] == pytest.approx(parameters.top_p, abs=1e-4)


def test_tokens_outside_the_window_are_counted_and_the_stream_ends_with_the_reply(
    api: Api, generator: Generator, model: TransformerLM
) -> None:
    """27 of 90 prompt tokens are dropped at first, and 32 tokens when the context window of 64 is full."""
    prompt = load_tokenizer().decode([464] * 90)
    body = {"checkpoint": MODEL, "prompt": prompt, "maxTokens": 8, "seed": 3, "temperature": 0.9, "topP": 0.8}
    with api.http.stream("POST", "/api/generate", json={**body, "stream": True}) as reply:
        *tokens, done = list(Events(reply))
    assert done.name == "done"
    assert done.data["promptTokens"] == 90
    assert done.data["truncated"] == 27 + 32
    assert [token.data for token in tokens] == done.data["trajectory"]
    complete = api.admin.post("/api/generate", json=body).json()
    assert {**complete, "elapsedMs": 0} == {**done.data, "elapsedMs": 0}
    assert (complete["effective"]["temperature"], complete["effective"]["topP"]) == (0.9, 0.8)


def test_values_at_the_limits_are_accepted(api: Api, generator: Generator, model: TransformerLM) -> None:
    body = {"checkpoint": MODEL, "prompt": "", "topK": 1024, "maxTokens": 1, "topP": 1, "seed": 2**63 - 1}
    reply = api.admin.post("/api/generate", json={**body, "temperature": 100, "repetitionPenalty": 100})
    assert reply.status_code == 200, reply.text
    assert reply.json()["effective"]["topK"] == 1024
    assert (reply.json()["promptTokens"], reply.json()["tokensGenerated"]) == (0, 1)


def test_temperature_0_selects_the_most_likely_token(api: Api, generator: Generator, model: TransformerLM) -> None:
    likeliest = generate(model, "Once upon", max_tokens=6, temperature=1.0, top_k=1, seed=1)
    body = {"checkpoint": MODEL, "prompt": "Once upon", "maxTokens": 6, "temperature": 0}
    replies = [api.admin.post("/api/generate", json={**body, "seed": seed}).json() for seed in (5, 6)]
    assert [reply["text"] for reply in replies] == [likeliest.text] * 2
    assert (replies[0]["effective"]["temperature"], replies[0]["effective"]["topK"]) == (1.0, 1)
    refused = api.admin.post("/api/generate", json={**body, "temperature": 0.0005})
    assert refused.status_code == 422
    assert "give 0 for the most likely token, or 0.001 to 100" in refused.json()["detail"]
