"""OpenAI's parameters of a completion, each tested with the `openai` package."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
import torch

from common.data import load_tokenizer
from common.generation import GenerationSettings, generate_batch
from common.model import TransformerLM
from tests.integration.api.conftest import TOKEN, Api
from tests.integration.api.openai_fixtures import MODEL, written
from tests.integration.api.openai_fixtures import client as client
from tests.integration.api.openai_fixtures import generator as generator
from tests.integration.api.openai_fixtures import model as model

PROMPT = "Once upon"


def log_softmax(model: TransformerLM, text: str) -> torch.Tensor:
    """Return the log-probabilities of the next token at each position of a text, of shape (T, V)."""
    with torch.no_grad():
        return model(torch.tensor([load_tokenizer().encode_ordinary(text)]))[0].log_softmax(1)


def test_log_probabilities_are_those_of_the_model_in_the_completions_format(
    client: openai.OpenAI, model: TransformerLM
) -> None:
    reply = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=3, seed=5, logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert (
        logprobs is not None
        and logprobs.token_logprobs
        and logprobs.tokens
        and logprobs.text_offset
        and logprobs.top_logprobs
    )
    expected = log_softmax(model, PROMPT)[-1]
    [first] = load_tokenizer().encode_ordinary(logprobs.tokens[0])
    assert logprobs.token_logprobs[0] == pytest.approx(expected[first].item(), abs=1e-3)
    best = expected.topk(2)
    for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        assert logprobs.top_logprobs[0][load_tokenizer().decode([token])] == pytest.approx(value, abs=1e-3)
    assert logprobs.top_logprobs[0][logprobs.tokens[0]] == logprobs.token_logprobs[0]
    assert logprobs.text_offset == [0, len(logprobs.tokens[0]), len(logprobs.tokens[0]) + len(logprobs.tokens[1])]


def test_logprobs_0_returns_no_alternatives(client: openai.OpenAI) -> None:
    logprobs = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2, logprobs=0).choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert (len(logprobs.tokens), logprobs.top_logprobs) == (2, None)


@pytest.mark.parametrize("ids", [False, True])
def test_echo_scores_the_prompt_without_generating(client: openai.OpenAI, model: TransformerLM, ids: bool) -> None:
    """Evaluation harnesses send max_tokens 0 with echo and logprobs."""
    text = "Once upon a time"
    tokens = load_tokenizer().encode_ordinary(text)
    reply = client.completions.create(
        model=MODEL, prompt=tokens if ids else text, max_tokens=0, echo=True, logprobs=1, temperature=0
    )
    [choice] = reply.choices
    logprobs = choice.logprobs
    assert (
        logprobs is not None
        and logprobs.token_logprobs
        and logprobs.tokens
        and logprobs.text_offset
        and logprobs.top_logprobs
    )
    assert (choice.text, choice.finish_reason) == (text, "length")
    assert logprobs.tokens == ["Once", " upon", " a", " time"]
    assert logprobs.text_offset == [0, 4, 9, 11]
    expected = log_softmax(model, text)
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    wanted = [expected[place, token].item() for place, token in enumerate(tokens[1:])]
    assert logprobs.token_logprobs[1:] == pytest.approx(wanted, abs=1e-3)
    assert max(logprobs.top_logprobs[1].values()) == pytest.approx(expected[0].max().item(), abs=1e-3)
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (4, 0)


def test_the_parts_of_an_echoed_stream_join_to_the_complete_reply(client: openai.OpenAI) -> None:
    """The request has two prompts, two choices each, log-probabilities, and a stop string that occurs in one
    completion."""
    text = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=9, seed=5).choices[0].text
    arguments: dict[str, Any] = {
        "model": MODEL, "prompt": [PROMPT, "two"], "n": 2, "max_tokens": 9, "seed": 5, "echo": True, "logprobs": 1,
        "stop": text[8:12],
    }  # fmt: skip
    complete = client.completions.create(**arguments)
    parts = list(client.completions.create(**arguments, stream=True))
    assert [choice.finish_reason for choice in complete.choices] == ["stop", "length", "length", "length"]
    for index, choice in enumerate(complete.choices):
        own = [part.choices[0] for part in parts if part.choices[0].index == index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own if part.finish_reason] == [choice.finish_reason]
        logprobs = choice.logprobs
        assert logprobs is not None
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [value for part in own if part.logprobs for value in getattr(part.logprobs, name)]
            assert joined == getattr(logprobs, name)
    first = complete.choices[0]
    assert first.text == PROMPT + text[: text.index(text[8:12])]
    assert first.logprobs is not None and first.logprobs.text_offset is not None
    assert max(first.logprobs.text_offset) < len(first.text)


def test_a_character_of_two_tokens_is_sent_in_one_part(client: openai.OpenAI) -> None:
    """The model must generate the two tokens of the character alternately.

    The logit bias excludes all other tokens, and each generated token gets a penalty of 2 that makes the other one
    likelier.
    """
    character = "\u2603"
    first, second = load_tokenizer().encode_ordinary(character)
    arguments: dict[str, Any] = {
        "model": MODEL, "prompt": PROMPT, "max_tokens": 7, "temperature": 0, "frequency_penalty": 2,
        "logit_bias": {str(first): 100, str(second): 99}, "logprobs": 0,
    }  # fmt: skip
    parts = list(client.completions.create(**arguments, stream=True))
    texts = [part.choices[0].text for part in parts]
    assert [text for text in texts if text] == [character] * 3 + ["\ufffd"]
    logprobs = client.completions.create(**arguments).choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.text_offset
    assert logprobs.tokens[0].startswith("bytes:\\x")
    assert logprobs.text_offset == [0, 0, 1, 1, 2, 2, 3]


def test_penalties_and_bias_have_the_effect_of_the_library(client: openai.OpenAI, model: TransformerLM) -> None:
    settings = GenerationSettings(
        max_tokens=12, temperature=0.7, top_k=40, top_p=0.9, repetition_penalty=1.1, presence_penalty=1.5,
        frequency_penalty=-0.5, logit_bias=((262, 6.0), (11, -100.0)),
    )  # fmt: skip
    [wanted] = generate_batch(model, [PROMPT], settings, seeds=[5])
    reply = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=12, seed=5, temperature=0.7, top_p=0.9, presence_penalty=1.5,
        frequency_penalty=-0.5, logit_bias={"262": 6, "11": -100}, extra_body={"top_k": 40, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert reply.choices[0].text == wanted.text


def test_best_of_returns_the_most_likely_texts(client: openai.OpenAI) -> None:
    arguments: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "seed": 5, "logprobs": 0}
    every = client.completions.create(**arguments, n=5).choices
    best = client.completions.create(**arguments, n=2, best_of=5)

    def mean(choice: Any) -> float:
        values: list[float] = choice.logprobs.token_logprobs
        return sum(values) / len(values)

    likeliest = sorted(every, key=mean, reverse=True)[:2]
    assert [choice.text for choice in best.choices] == [choice.text for choice in likeliest]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None
    assert best.usage.completion_tokens == 20


def test_a_seed_gives_the_same_text_among_others_and_a_fingerprint(client: openai.OpenAI) -> None:
    arguments: dict[str, Any] = {
        "model": MODEL,
        "prompt": PROMPT,
        "max_tokens": 8,
        "presence_penalty": 1,
        "stop": ["zz"],
    }
    alone = client.completions.create(**arguments, seed=11)
    among = client.completions.create(**{**arguments, "prompt": ["another", PROMPT]}, seed=8, n=3)
    assert among.choices[3].text == alone.choices[0].text
    assert alone.system_fingerprint == among.system_fingerprint
    assert str(alone.system_fingerprint).startswith("fp_")


def test_null_is_handled_like_an_omitted_key(api: Api, client: openai.OpenAI, model: TransformerLM) -> None:
    names = ["max_tokens", "temperature", "top_p", "n", "stop", "logprobs", "echo", "stream", "best_of", "suffix"]
    names += ["presence_penalty", "frequency_penalty", "logit_bias", "user", "stream_options"]
    body = {"model": MODEL, "prompt": PROMPT, "seed": 5, **dict.fromkeys(names)}
    reply = api.admin.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["text"] == written(model, PROMPT, 5, max_tokens=16)


def test_the_asynchronous_client_streams_many_at_once(api: Api, client: openai.OpenAI, model: TransformerLM) -> None:
    async def text(client: openai.AsyncOpenAI, seed: int) -> str:
        parts = await client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, seed=seed, stream=True)
        return "".join([part.choices[0].text async for part in parts])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=TOKEN, max_retries=0, timeout=20) as client:
            return await asyncio.gather(*(text(client, seed) for seed in range(6)))

    assert asyncio.run(many()) == [written(model, PROMPT, seed) for seed in range(6)]
