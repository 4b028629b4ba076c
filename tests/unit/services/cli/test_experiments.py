"""Requests, output and files of `tidal experiments` and `tidal metrics`, and completion, with a fake api."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from common.errors import ConflictError, InvalidInputError
from services.cli import completion
from services.cli.commands import experiments, metrics
from services.cli.main import app
from tests.unit import api_documents as documents
from tidal_client import Client

SERIES = {
    "Losses/Total": [{"step": 1, "value": 0.30000000000000004}, {"step": 3, "value": 2.0}],
    "Losses/Validation": [{"step": 2, "value": 2.5}],
}


class Api:
    """A fake api with the experiments `first` and `second`, which records the requests."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.busy: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.sent.append((request.method, path, json.loads(request.content) if request.content else None))
        listed = [
            documents.experiment(id=name, metricNames=list(SERIES), tags=["night"]) for name in ("first", "second")
        ]
        if path == "/api/experiments":
            return httpx.Response(200, json={"experiments": listed})
        if path == "/api/jobs":
            return httpx.Response(200, json={"jobs": [documents.job(), documents.job(id="job_2")]})
        _, _, _, name, *rest = path.split("/")
        if name not in ("first", "second"):
            return httpx.Response(404, json={"detail": f"there is no experiment {name}"})
        if request.method == "DELETE":
            busy = httpx.Response(409, json={"detail": f"{name} has a live job"})
            return busy if name in self.busy else httpx.Response(204)
        if rest == ["metrics"]:
            return httpx.Response(200, json=documents.metrics(keys=list(SERIES), series=SERIES))
        if rest == ["config"]:
            config = {"training": {"max_steps": 5 if name == "first" else 9, "seed": 1}, "data": {"source": "x"}}
            return httpx.Response(200, json={"experimentId": name, "config": config})
        changes = json.loads(request.content) if request.method == "PATCH" else {}
        return httpx.Response(200, json=documents.experiment(id=name, metricNames=list(SERIES), **changes))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    played = Api()

    def connect(url: str | None, token: str | None) -> Client:
        return Client("http://tidal", retries=0, transport=httpx.MockTransport(played))

    for module in (experiments, metrics, completion):
        monkeypatch.setattr(module, "connect", connect)
    return played


@pytest.fixture
def tidal(api: Api) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_the_list_and_the_details_have_ids_tags_and_last_values(tidal: Callable[..., Result]) -> None:
    listed = tidal("experiments", "list", "--tag", "night")
    assert listed.exit_code == 0 and "first" in listed.stdout and "night" in listed.stdout
    assert [each["id"] for each in json.loads(tidal("experiments", "list", "--json").stdout)] == ["first", "second"]
    shown = tidal("experiments", "show", "last").stdout
    assert "first" in shown and "Losses/Validation" in shown and "2.5" in shown
    assert json.loads(tidal("experiments", "show", "second", "--json").stdout)["id"] == "second"


def test_a_comparison_shows_what_differs_and_only_that(tidal: Callable[..., Result]) -> None:
    text = tidal("experiments", "compare", "first", "second").stdout
    assert "training.max_steps" in text and "training.seed" not in text and "Losses/Total" in text
    found = json.loads(tidal("experiments", "compare", "first", "second", "--json", "-m", "Losses/Total").stdout)
    assert found == {
        "experiments": ["first", "second"],
        "configuration": {"training.max_steps": {"first": 5, "second": 9}},
        "metrics": {"Losses/Total": {"first": 2.0, "second": 2.0}},
    }
    assert isinstance(tidal("experiments", "compare", "first", "first").exception, InvalidInputError)


def test_a_name_is_changed_and_removed(api: Api, tidal: Callable[..., Result]) -> None:
    assert "is now named 'new'" in tidal("experiments", "rename", "first", "new").stderr
    assert "has no name" in tidal("experiments", "rename", "first", "").stderr
    assert [body for method, _, body in api.sent if method == "PATCH"] == [{"name": "new"}, {"name": None}]


def test_a_deletion_needs_a_confirmation_and_continues_after_a_refusal(api: Api, tidal: Callable[..., Result]) -> None:
    assert isinstance(tidal("experiments", "delete", "first").exception, InvalidInputError)
    assert isinstance(tidal("experiments", "delete", "last", "--yes").exception, InvalidInputError)
    assert not [each for each in api.sent if each[0] == "DELETE"]
    api.busy = {"first"}
    ended = tidal("experiments", "delete", "first", "second", "--yes")
    assert ended.exit_code == 1
    assert "first has a live job" in ended.stderr and "Deleted second." in ended.stderr


def test_metrics_are_exported_with_all_digits_and_empty_cells(tidal: Callable[..., Result], tmp_path: Path) -> None:
    rows = list(csv.DictReader(tidal("metrics", "first").stdout.splitlines()))
    assert rows == [
        {"step": "1", "Losses/Total": "0.30000000000000004", "Losses/Validation": ""},
        {"step": "2", "Losses/Total": "", "Losses/Validation": "2.5"},
        {"step": "3", "Losses/Total": "2.0", "Losses/Validation": ""},
    ]
    for name in ("m.csv", "m.parquet"):
        assert "Wrote 3 rows" in tidal("metrics", "first", "--to", str(tmp_path / name)).stderr
    assert list(csv.DictReader((tmp_path / "m.csv").read_text().splitlines())) == rows
    table = pq.read_table(tmp_path / "m.parquet").to_pydict()
    assert table["step"] == [1, 2, 3]
    assert table["Losses/Total"] == [0.30000000000000004, None, 2.0]
    assert isinstance(tidal("metrics", "first", "--to", str(tmp_path / "m.csv")).exception, ConflictError)
    assert tidal("metrics", "first", "--to", str(tmp_path / "m.csv"), "--force").exit_code == 0
    assert isinstance(tidal("metrics", "first", "--format", "parquet").exception, InvalidInputError)
    assert json.loads(tidal("metrics", "first", "--json").stdout)["series"]["Losses/Total"][1] == {
        "step": 3,
        "value": 2.0,
    }


def test_ids_are_completed_and_without_an_api_there_is_no_suggestion(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [found for found, _ in completion.complete_experiment("")] == ["last", "first", "second"]
    assert [found for found, _ in completion.complete_experiment("se")] == ["second"]
    assert [found for found, _ in completion.complete_job("job_")] == ["job_1", "job_2"]

    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    unreachable = Client("http://tidal", retries=0, transport=httpx.MockTransport(away))
    monkeypatch.setattr(completion, "connect", lambda url, token: unreachable)
    assert completion.complete_experiment("") == []


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (12_345.0, "12,345"), (2.123456789, "2.12346"), (1e-9, "1e-09"), (math.nan, "nan")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert experiments.number_text(value) == text
