"""The `openai` package against the api and the real engine with a tiny model: completions, choices and streams.

`test_api_completion_parameters` tests each parameter; `test_api_completion_errors` tests errors and limits.
"""

from __future__ import annotations

from typing import Any

import openai
import pytest

from common.artifacts import ArtifactStore, CheckpointFile
from common.data import load_tokenizer
from common.generation import generate
from common.model import TransformerLM
from services.api.operations import completions
from tests.integration.api.conftest import Api
from tests.integration.api.openai_fixtures import MODEL, Generator, written
from tests.integration.api.openai_fixtures import client as client
from tests.integration.api.openai_fixtures import generator as generator
from tests.integration.api.openai_fixtures import model as model


def test_a_completion_is_the_text_of_the_library(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=12, seed=5)
    assert reply.choices[0].text == written(model, "Once upon", 5)
    assert (reply.choices[0].finish_reason, reply.object, reply.model) == ("length", "text_completion", MODEL)
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 12, 14)


def test_temperature_zero_selects_the_most_likely_token(client: openai.OpenAI, model: TransformerLM) -> None:
    texts = [
        client.completions.create(model=MODEL, prompt="Once upon", max_tokens=8, temperature=0).choices[0].text
        for _ in range(2)
    ]
    assert texts == [written(model, "Once upon", 0, max_tokens=8, top_k=1)] * 2


def test_choices_are_numbered_across_all_prompts(client: openai.OpenAI, model: TransformerLM) -> None:
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
    complete = written(model, "Once upon", 5)
    stop = complete[6:10]
    for stream in (False, True):
        raw = client.completions.create(
            model=MODEL, prompt="Once upon", max_tokens=12, seed=5, stop=["never", stop], stream=stream
        )
        replies = [raw] if isinstance(raw, openai.types.Completion) else list(raw)
        choices = [reply.choices[0] for reply in replies]
        assert "".join(choice.text for choice in choices) == complete[: complete.index(stop)]
        assert choices[-1].finish_reason == "stop"


def test_the_parts_of_a_stream_join_to_the_text_and_include_the_usage(
    client: openai.OpenAI, model: TransformerLM
) -> None:
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
        own = [choice for part in parts for choice in part.choices if choice.index == index]
        assert "".join(choice.text for choice in own) == written(model, "Once upon", 5 + index)
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["length"]
        offsets = [choice.logprobs.text_offset[0] for choice in own if choice.logprobs and choice.logprobs.text_offset]
        assert offsets == sorted(offsets)
        assert len(offsets) == 12
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens == 24
    assert len({part.id for part in parts}) == 1


@pytest.mark.parametrize(
    ("asked", "tokens"), [({}, False), ({"stream": True, "logprobs": 1}, False), ({"best_of": 3}, True)], ids=str
)
def test_the_engine_returns_all_tokens_at_the_end_only_if_the_reply_needs_them(
    client: openai.OpenAI, generator: Generator, asked: dict[str, Any], tokens: bool
) -> None:
    raw = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=12, n=2, **asked)
    list(raw)
    [reply] = generator.replies
    assert [("trajectory" in choice) for choice in reply["choices"]] == [tokens] * len(reply["choices"])


def test_a_large_reply_is_complete(client: openai.OpenAI, model: TransformerLM) -> None:
    """The reply is larger than LARGE_CHARACTERS, so the api builds it in a thread."""
    reply = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=100, n=8, seed=5, logprobs=1)
    assert [choice.text for choice in reply.choices] == [
        written(model, "Once upon", 5 + number, max_tokens=100) for number in range(8)
    ]
    assert [len(choice.logprobs.tokens or []) for choice in reply.choices if choice.logprobs] == [100] * 8


def test_the_modulation_reaches_the_engine(client: openai.OpenAI, model: TransformerLM) -> None:
    reply = client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=12, seed=5, extra_body={"modulation": 0.2}
    )
    wanted = generate(model, "Once upon", max_tokens=12, gating_mode="fixed", modulation=0.2, seed=5)
    assert reply.choices[0].text == wanted.text


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


def test_finding_a_model_reads_the_files_of_its_experiment_only(api: Api) -> None:
    looked: list[str] = []

    class Watched(ArtifactStore):
        def checkpoint_files(self, experiment_id: str) -> list[CheckpointFile]:
            looked.append(experiment_id)
            return super().checkpoint_files(experiment_id)

    wanted, other = (str(api.submit()["experimentId"]) for _ in range(2))
    for name in (wanted, other, "20260101-000000-unknown"):
        (api.experiment_folder(name) / "model.safetensors").write_bytes(b"x")
    store = Watched(api.settings.experiments_dir)
    with api.context.sessions() as session:
        found = completions.find_model(session, store, f"{wanted}/final")
        assert found in completions.list_all_models(session, ArtifactStore(store.root)).data
        unlisted = completions.find_model(session, store, "20260101-000000-unknown/final")
    assert (found.id, unlisted.id) == (f"{wanted}/model.safetensors", "20260101-000000-unknown/model.safetensors")
    assert set(looked) == {wanted, "20260101-000000-unknown"}
