"""The `openai` package, unchanged, against the api and the real engine with a tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.data import load_tokenizer
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.test_api_generate import _body
from tests.integration.generator.serving import Serving

torch.set_num_threads(1)

MODEL = "exp-1/model.safetensors"


class Generator:
    """Hears the Celery messages of the queue `generate` and has the real engine answer them."""

    def __init__(self, url: str, experiments: Path) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=10)
        self._serving = Serving(self._redis, experiments, slots=8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._serving.close()
        self._redis.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._redis.brpop(["generate"], timeout=0.2)
            if message:
                [request_id] = json.loads(_body(message[1].decode()))[0]
                self._serving.handle(request_id)


@pytest.fixture
def model(api: Api) -> TransformerLM:
    """In the store under MODEL; its end-of-text is rare."""
    torch.manual_seed(0)
    made = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    with torch.no_grad():
        made.output_projection.bias[load_tokenizer().eot_token] = -30.0
    path = api.experiment_folder("exp-1") / "model.safetensors"
    save_model(made, path)
    return load_model(path)


@pytest.fixture
def client(api: Api, model: TransformerLM, redis_url: str) -> Iterator[openai.OpenAI]:
    generator = Generator(redis_url, api.settings.experiments_dir)
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="administrator-token", max_retries=0, timeout=20) as made:
        yield made
    generator.close()


def written(model: TransformerLM, prompt: str, seed: int, *, max_tokens: int = 12, top_k: int | None = None) -> str:
    """The text the library writes with OpenAI's defaults."""
    result = generate(
        model, prompt, max_tokens=max_tokens, temperature=1.0, top_k=top_k, repetition_penalty=1.0, seed=seed
    )
    return result.text


def test_a_completion_is_the_text_of_the_library(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=12, seed=5)
    assert reply.choices[0].text == written(model, "Once upon", 5)
    assert (reply.choices[0].finish_reason, reply.object, reply.model) == ("length", "text_completion", MODEL)
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 12, 14)


def test_temperature_zero_is_the_likeliest_token(client: openai.OpenAI, model: TransformerLM) -> None:
    texts = [
        client.completions.create(model=MODEL, prompt="Once upon", max_tokens=8, temperature=0).choices[0].text
        for _ in range(2)
    ]
    assert texts == [written(model, "Once upon", 0, max_tokens=8, top_k=1)] * 2


def test_choices_and_prompts_are_numbered_through(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(model=MODEL, prompt=["one", "two"], n=2, max_tokens=6, seed=9)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    wanted = [written(model, prompt, 9 + 2 * row + n, max_tokens=6) for row, prompt in enumerate(["one", "two"])
              for n in range(2)]  # fmt: skip
    assert [choice.text for choice in reply.choices] == wanted
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 24


def test_a_prompt_may_be_token_ids(client: openai.OpenAI, model: TransformerLM) -> None:
    ids = load_tokenizer().encode_ordinary("Once upon")
    reply = client.completions.create(model=MODEL, prompt=ids, max_tokens=12, seed=5)
    assert reply.choices[0].text == written(model, "Once upon", 5)


def test_a_stop_string_ends_the_text(client: openai.OpenAI, model: TransformerLM) -> None:
    whole = written(model, "Once upon", 5)
    stop = whole[6:10]
    for stream in (False, True):
        asked = client.completions.create(
            model=MODEL, prompt="Once upon", max_tokens=12, seed=5, stop=["never", stop], stream=stream
        )
        choices = [part.choices[0] for part in asked] if stream else asked.choices  # type: ignore[union-attr]
        assert "".join(choice.text for choice in choices) == whole[: whole.index(stop)]
        assert choices[-1].finish_reason == "stop"


def test_a_stream_joins_to_the_text_and_tells_the_usage(client: openai.OpenAI, model: TransformerLM) -> None:
    parts = list(
        client.completions.create(
            model=MODEL,
            prompt="Once upon",
            max_tokens=12,
            seed=5,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            logprobs=1,
        )
    )
    for index in range(2):
        mine = [choice for part in parts for choice in part.choices if choice.index == index]
        assert "".join(choice.text for choice in mine) == written(model, "Once upon", 5 + index)
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["length"]
        offsets = [choice.logprobs.text_offset[0] for choice in mine if choice.logprobs and choice.logprobs.text_offset]
        assert offsets == sorted(offsets)
        assert len(offsets) == 12
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens == 24
    assert len({part.id for part in parts}) == 1


def test_echo_and_logprobs(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=3, seed=5, echo=True, logprobs=2)
    [choice] = reply.choices
    assert choice.text == "Once upon" + written(model, "Once upon", 5, max_tokens=3)
    told = choice.logprobs
    assert told is not None and told.token_logprobs and told.tokens and told.text_offset and told.top_logprobs
    ids = load_tokenizer().encode_ordinary("Once upon")
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0, -1].log_softmax(0)
    first = load_tokenizer().encode_ordinary(told.tokens[0])
    assert told.token_logprobs[0] == pytest.approx(expected[first[0]].item(), abs=1e-3)
    assert list(told.top_logprobs[0].values()) == pytest.approx(expected.topk(2).values.tolist(), abs=1e-3)
    assert told.text_offset[0] == len("Once upon")


def test_the_modulation_goes_along(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=12, seed=5, extra_body={"modulation": 0.2}
    )
    wanted = generate(model, "Once upon", max_tokens=12, gating_mode="fixed", modulation=0.2, seed=5)
    assert reply.choices[0].text == wanted.text


def test_errors_are_those_the_package_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nosuch/final", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model=MODEL, prompt="x", max_tokens=5000)
    assert (wrong.value.param, wrong.value.type) == ("max_tokens", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model=MODEL, prompt="x", suffix="y")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=MODEL, messages=[])


def test_callers_without_a_token_are_limited(api: Api, client: openai.OpenAI) -> None:
    stranger = openai.OpenAI(base_url=f"{api.url}/v1", api_key="anything", max_retries=0)
    for _ in range(5):
        raw = stranger.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=1)
        assert raw.headers["x-ratelimit-limit"] == "5"
    with pytest.raises(openai.RateLimitError) as refused:
        stranger.completions.create(model=MODEL, prompt="x", max_tokens=1)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.type == "rate_limit_error"
    stranger.close()


def test_models_are_listed_and_found(api: Api, client: openai.OpenAI) -> None:
    job = api.submit()
    folder = api.experiment_folder(job["experimentId"])
    (folder / "model.safetensors").write_bytes(b"x")
    other = api.experiment_folder(api.submit()["experimentId"])
    (other / "rl_checkpoint_final.pth").write_bytes(b"x")
    name = f"{job['experimentId']}/model.safetensors"
    assert name in [model.id for model in client.models.list()]
    assert not [model.id for model in client.models.list() if "rl_checkpoint" in model.id]
    assert client.models.retrieve(f"{job['experimentId']}/final").id == name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nosuch/final")


def test_nobody_takes_the_request_in_time(serve: RunApi) -> None:
    with serve(generate_queue_seconds=0.3) as api:
        (api.experiment_folder("exp-1") / "model.safetensors").write_bytes(b"x")
        reply: httpx.Response = api.admin.post("/v1/completions", json={"model": MODEL, "prompt": "x"})
        assert reply.status_code == 503
        assert reply.json()["error"]["type"] == "server_error"
        assert api.http.get("/v1/nothing").json()["error"]["message"]
