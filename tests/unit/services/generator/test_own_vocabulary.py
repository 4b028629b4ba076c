"""A model with its own vocabulary generates and scores tokens of that vocabulary, and GPT-2's is never read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.artifacts import ArtifactStore
from common.checkpoint import save_model
from common.controller import GatingPolicy
from common.errors import InvalidInputError
from common.generation import DecodingModel, new_engine
from common.redis.generation_request import GenerationRequest
from services.generator import terminal
from services.generator.model_cache import ModelCache
from services.generator.running_request import RunningRequest
from tests.own_vocabulary import forbid_gpt2, own_model, own_vocabulary

PROMPT = "Once upon a time — naïve 猫"


@pytest.fixture(autouse=True)
def without_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_gpt2(monkeypatch)


def finished(model: DecodingModel, **fields: Any) -> RunningRequest:
    """Return a request that has run to its end."""
    request = GenerationRequest(id="r", checkpoint="c", **fields)
    running = RunningRequest(request, model, None, total_seconds=60.0)
    engine = new_engine(model, slots=4)
    engine.join(running.choices)
    while engine.active:
        engine.step()
    return running


def test_a_prompt_is_encoded_scored_and_echoed_with_the_models_own_vocabulary() -> None:
    vocabulary = own_vocabulary()
    model = own_model(vocabulary)
    running = finished(DecodingModel(model), prompt=PROMPT, max_tokens=4, echo=True, log_probs=True, top_log_probs=2)
    ids = vocabulary.encoding.encode_ordinary(PROMPT)
    prompt = running.prompt_event()
    assert prompt["text"] == PROMPT
    assert [token["id"] for token in prompt["tokens"]] == ids
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].log_softmax(1)
    found = [token["logProb"] for token in prompt["tokens"]]
    assert found[0] is None
    assert found[1:] == pytest.approx([expected[at, token].item() for at, token in enumerate(ids[1:])], abs=1e-4)
    name, reply = running.last_event()
    assert name == "done"
    made = b"".join(vocabulary.encoding.decode_single_token_bytes(token["id"]) for token in reply["trajectory"])
    assert reply["text"] == made.decode(errors="replace") and len(reply["trajectory"]) == 4
    for token in reply["trajectory"]:
        assert len(token["alternatives"]) == 2
        for shown in (token["token"], *(other["text"] for other in token["alternatives"])):
            assert shown.startswith("bytes:") or vocabulary.encoding.encode_ordinary(shown)


def test_a_character_of_several_tokens_is_held_back_until_it_is_complete() -> None:
    """The bias allows only the three bytes of a character, and the penalty makes them take turns."""
    vocabulary = own_vocabulary()
    ids = vocabulary.encoding.encode_ordinary("猫")
    assert len(ids) == 3
    bias = {token: 100.0 - place / 2 for place, token in enumerate(ids)}
    running = finished(
        DecodingModel(own_model(vocabulary, scale=1.0)), prompt="x", max_tokens=6, logit_bias=bias, top_k=1,
        frequency_penalty=2.0, temperature=0.01, repetition_penalty=1.0,
    )  # fmt: skip
    [choice] = running.choices
    assert choice.result.token_ids == ids * 2
    assert [step.text for step in choice.result.trajectory] == ["", "", "猫"] * 2


def test_an_id_outside_the_own_vocabulary_is_refused() -> None:
    model = DecodingModel(own_model(own_vocabulary()))
    for fields in ({"prompt": [399, 400]}, {"prompt": "a", "logit_bias": {400: 1.0}}):
        with pytest.raises(InvalidInputError, match=r"token 400; the model's vocabulary is 0\.\.399"):
            finished(model, **fields)


def test_a_controller_works_only_with_the_vocabulary_it_was_trained_with() -> None:
    model, policy = DecodingModel(own_model(own_vocabulary())), GatingPolicy()
    request = GenerationRequest(id="r", checkpoint="c", prompt="a", gating_mode="learned", rl_checkpoint="p")
    with pytest.raises(
        InvalidInputError, match=r"trained with the vocabulary gpt2 .* the language model has train:400"
    ):
        RunningRequest(request, model, policy, total_seconds=60.0)
    policy.vocabulary = model.vocabulary.label
    RunningRequest(request, model, policy, total_seconds=60.0)


def test_the_cache_gives_each_model_its_own_vocabulary(tmp_path: Path) -> None:
    """The models have equal sizes; one is a file of an experiment, and one a second file of another experiment."""
    vocabularies = {"exp-1": own_vocabulary(), "exp-2": own_vocabulary(first_story=40)}
    assert len({vocabulary.digest for vocabulary in vocabularies.values()}) == 2
    for name, vocabulary in vocabularies.items():
        (tmp_path / name).mkdir()
        save_model(own_model(vocabulary), tmp_path / name / "model.safetensors")
    cache = ModelCache(ArtifactStore(tmp_path), device=torch.device("cpu"), capacity=2**30)
    for name in ("exp-1", "exp-2", "exp-1"):
        running = finished(cache.model(f"{name}/final"), prompt=PROMPT, max_tokens=1)
        assert running.choices[0].result.prompt_token_ids == vocabularies[name].encoding.encode_ordinary(PROMPT)


def test_the_terminal_generates_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = own_vocabulary()
    save_model(own_model(vocabulary), tmp_path / "model.pth")
    terminal._run(str(tmp_path / "model.pth"), None, PROMPT, max_tokens=5, seed=1)
    *tokens, done = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ids = [token["data"]["id"] for token in tokens]
    assert done["event"] == "done" and done["data"]["text"] == vocabulary.encoding.decode(ids)
    assert done["data"]["promptTokens"] == len(vocabulary.encoding.encode_ordinary(PROMPT))
