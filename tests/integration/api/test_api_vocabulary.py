"""The vocabulary of a model over HTTP: in the experiment, its checkpoints and models, with entries, and as a file."""

from __future__ import annotations

from common.checkpoint import save_model
from common.config import LMConfig, dump_yaml
from tests.integration.api.conftest import TOKEN, Api
from tests.own_vocabulary import model_with_gpt2, own_model, own_vocabulary
from tidal_client import Client


def test_an_own_vocabulary_is_shown_wherever_its_model_is(api: Api) -> None:
    experiment = str(api.submit()["experimentId"])
    base, folder = f"/api/experiments/{experiment}", api.experiment_folder(experiment)
    assert api.http.get(base).json()["vocabulary"] is None
    assert api.http.get(f"{base}/vocabulary").status_code == 404
    vocabulary = own_vocabulary()
    (folder / "tokenizer.json").write_text(vocabulary.to_json(), encoding="utf-8")
    assert api.http.get(base).json()["vocabulary"] == vocabulary.describe(), "before the first checkpoint"
    save_model(own_model(vocabulary), folder / "model.safetensors")
    [checkpoint] = api.http.get(f"{base}/checkpoints").json()["checkpoints"]
    assert checkpoint["vocabulary"] == vocabulary.describe()
    [model] = api.http.get("/v1/models").json()["data"]
    assert model["vocabulary"] == vocabulary.describe()

    with Client(api.url, TOKEN) as client:
        found = client.vocabulary(experiment)
    assert found.digest == vocabulary.digest and found.words and found.longest
    assert found.download is not None
    assert api.http.get(found.download).content == vocabulary.to_json().encode()
    wrong = api.http.get(found.download, params={"format": "pth"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (404, "application/problem+json")


def test_a_model_without_one_has_gpt_2s(api: Api) -> None:
    experiment = str(api.submit()["experimentId"])
    save_model(model_with_gpt2(), api.experiment_folder(experiment) / "model.safetensors")
    found = api.http.get(f"/api/experiments/{experiment}/vocabulary").json()
    assert (found["name"], found["size"], found["words"], found["download"]) == ("gpt2", 50257, [], None)
    assert api.http.get(f"/api/experiments/{experiment}/checkpoints/tokenizer.json").status_code == 404


def test_a_damaged_vocabulary_does_not_hide_the_experiment(api: Api) -> None:
    experiment = str(api.submit()["experimentId"])
    (api.experiment_folder(experiment) / "tokenizer.json").write_text("{}")
    assert api.http.get(f"/api/experiments/{experiment}").json()["vocabulary"] is None
    damaged = api.http.get(f"/api/experiments/{experiment}/vocabulary")
    assert damaged.status_code == 507 and "cannot be read as a vocabulary" in damaged.json()["detail"]


def test_a_training_from_a_checkpoint_names_a_conflict_with_its_model(api: Api) -> None:
    vocabulary, folder = own_vocabulary(), api.experiment_folder("base")
    save_model(own_model(vocabulary), folder / "model.safetensors")
    trained = LMConfig.model_validate(
        {"model": {"d_model": 24, "num_layers": 1, "num_heads": 2}, "data": {"tokenizer": vocabulary.name}}
    )
    (folder / "config.yaml").write_text(dump_yaml(trained))
    body = {"type": "lm-training", "checkpoint": "base/final"}
    reply = api.admin.post("/api/jobs", json={**body, "config": {"data": {"tokenizer": "train:500"}}})
    assert reply.status_code == 422
    assert f"train:500 differs from the vocabulary {vocabulary.name}" in reply.json()["detail"]
    refused = api.admin.post("/api/jobs", json={**body, "config": {"model": {"depth": 8}}})
    assert (refused.status_code, refused.json()["errors"][0]["location"]) == (422, "body.config.model.depth")
    accepted = api.admin.post("/api/jobs", json=body)
    assert accepted.status_code == 201, accepted.text
    config = accepted.json()["payload"]["config"]
    assert (config["data"]["tokenizer"], config["model"]["vocab_size"]) == (vocabulary.name, vocabulary.size)
