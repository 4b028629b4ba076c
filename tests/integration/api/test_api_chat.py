"""The `openai` package against `/v1/chat/completions` and the real engine with a tiny model."""

from __future__ import annotations

import openai
import pytest

from common.chat.template import TEMPLATE_FILE
from common.model import TransformerLM
from tests.integration.api.conftest import Api
from tests.integration.api.openai_fixtures import MODEL, Generator, written
from tests.integration.api.openai_fixtures import client as client
from tests.integration.api.openai_fixtures import generator as generator
from tests.integration.api.openai_fixtures import model as model
from tidal_client import Client

USER = {"role": "user", "content": "Hi"}
PROMPT = "User: Hi\nAssistant:"


def test_a_message_is_the_completion_of_the_default_template(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=[USER], max_tokens=12, seed=5)
    [choice] = reply.choices
    assert (choice.message.role, choice.message.content) == ("assistant", written(model, PROMPT, 5))
    assert (choice.finish_reason, reply.object, reply.model) == ("length", "chat.completion", MODEL)
    assert reply.id.startswith("chatcmpl-") and reply.system_fingerprint is not None
    assert reply.usage is not None and reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    again = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], max_completion_tokens=12, seed=5
    )
    assert again.choices[0].message.content == choice.message.content


def test_the_parts_of_a_stream_join_to_the_messages_and_include_the_usage(
    client: openai.OpenAI, model: TransformerLM
) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[USER], max_tokens=12, seed=5, n=2, stream=True, stream_options={"include_usage": True}
    )
    texts, ends, roles = ["", ""], [None, None], ["", ""]
    *parts, last = list(stream)
    for part in parts:
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] += choice.delta.role or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [written(model, PROMPT, 5), written(model, PROMPT, 6)]
    assert (ends, roles) == (["length"] * 2, ["assistant"] * 2)
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens == 24


def test_stop_strings_and_log_probabilities(client: openai.OpenAI, model: TransformerLM) -> None:
    complete = written(model, PROMPT, 5)
    stop = complete[6:10]
    reply = client.chat.completions.create(
        model=MODEL, messages=[USER], max_tokens=12, seed=5, stop=stop, logprobs=True, top_logprobs=2
    )
    [choice] = reply.choices
    assert (choice.message.content, choice.finish_reason) == (complete[: complete.index(stop)], "stop")
    assert choice.logprobs is not None and choice.logprobs.content
    raw = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, seed=5, stop=stop, logprobs=2).choices[0]
    assert raw.logprobs is not None and raw.logprobs.top_logprobs is not None
    assert [token.token for token in choice.logprobs.content] == raw.logprobs.tokens
    assert [token.logprob for token in choice.logprobs.content] == raw.logprobs.token_logprobs
    for token, others in zip(choice.logprobs.content, raw.logprobs.top_logprobs, strict=True):
        likeliest = sorted(others.values(), reverse=True)[:2]
        assert [other.logprob for other in token.top_logprobs] == likeliest
        assert token.token.startswith("bytes:") or bytes(token.bytes or []) == token.token.encode()


def test_a_template_beside_the_model_is_used_and_listed(
    api: Api, client: openai.OpenAI, model: TransformerLM, generator: Generator
) -> None:
    def kind() -> object:
        [listed] = [each for each in client.models.list().data if each.id == MODEL] or [client.models.retrieve(MODEL)]
        return (listed.model_extra or {})["chat_template"]

    assert kind() == "default"
    path = api.experiment_folder("exp-1") / TEMPLATE_FILE
    path.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>")
    assert kind() == "own"
    reply = client.chat.completions.create(model=MODEL, messages=[USER], max_tokens=12, seed=5)
    assert reply.choices[0].message.content == written(model, "<user>Hi<assistant>", 5)
    path.write_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(openai.BadRequestError, match="takes longer than") as refused:
        client.chat.completions.create(model=MODEL, messages=[USER])
    assert refused.value.param == "messages"
    with Client(api.url) as typed:
        path.unlink()
        assert typed.chat(MODEL, [USER], max_tokens=12, seed=5).choices[0].message.content == written(model, PROMPT, 5)
        streamed = list(typed.chat_stream(MODEL, [USER], max_tokens=12, seed=5))
        assert "".join(part.choices[0].delta.content or "" for part in streamed) == written(model, PROMPT, 5)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "us er", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "messages"),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"n": 64, "max_tokens": 4096}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"gating_mode": "learned"}, "rl_checkpoint"),
    ],
)
def test_an_invalid_request_names_the_field(api: Api, model: TransformerLM, changes: dict, param: str) -> None:
    body = {"model": MODEL, "messages": [USER], **changes}
    reply = api.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400, reply.text
    assert str(reply.json()["error"]["param"]).startswith(param)


def test_an_unknown_model_is_not_found(api: Api) -> None:
    reply = api.http.post("/v1/chat/completions", json={"model": "x/final", "messages": [USER]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
