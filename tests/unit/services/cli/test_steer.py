"""The requests, the output and the exit status of `tidal pause`, `resume`, `complete`, `stop` and `cancel`."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from common.errors import InvalidInputError
from services.cli.commands import steer
from services.cli.main import app
from tests.unit import api_documents as documents
from tidal_client import Client


class Api:
    """A fake api. `statuses` is {job id: statuses that successive requests return}."""

    def __init__(self) -> None:
        self.statuses: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.moves: dict[str, dict[str, list[str]]] = {}
        """{status: changes of `statuses` that are made once, after a client has listed the jobs with this status}."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.split("/")
        if request.url.path == "/api/jobs":
            wanted = request.url.params.get("status")
            found = [self.document(name) for name, left in self.statuses.items() if wanted in (None, left[0])]
            begin, size = int(request.url.params.get("cursor", 0)), int(request.url.params["limit"])
            more = str(begin + size) if len(found) > begin + size else None
            if wanted in self.moves and more is None:
                self.statuses.update(self.moves.pop(wanted))
            return httpx.Response(200, json={"jobs": found[begin : begin + size], "nextCursor": more})
        name = parts[3]
        if name not in self.statuses:
            return httpx.Response(404, json={"detail": f"there is no job '{name}'"})
        if request.method == "POST":
            signal_name = json.loads(request.content)["signal"] if parts[4] == "signal" else "cancel"
            if self.statuses[name][0] == "completed":
                return httpx.Response(409, json={"detail": f"job {name} is completed and takes no signal"})
            self.asked.append((name, signal_name))
        elif len(self.statuses[name]) > 1:
            self.statuses[name].pop(0)
        return httpx.Response(200, json=self.document(name))

    def document(self, name: str) -> dict[str, Any]:
        status = self.statuses[name][0]
        return documents.job(
            id=name,
            status=status,
            signals=["pause", "stop"] if status == "running" else ["resume"] if status == "paused" else [],
            whatNext=f"next of {status}.",
        )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    played = Api()

    def connect(url: str | None, token: str | None) -> Client:
        return Client("http://tidal", transport=httpx.MockTransport(played))

    monkeypatch.setattr(steer, "connect", connect)
    monkeypatch.setattr(steer, "POLL_SECONDS", 0.0)
    return played


def tidal(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["jobs", *arguments])


def test_what_will_happen_is_printed_at_once(api: Api) -> None:
    api.statuses = {"a": ["running"]}
    asked = tidal("pause", "a")
    assert asked.exit_code == 0
    assert asked.stdout == "a  running. next of running.\n"
    assert api.asked == [("a", "pause")]


def test_waiting_shows_the_way_to_the_wanted_end(api: Api) -> None:
    api.statuses = {"a": ["running", "running", "stopping", "cancelled"]}
    waited = tidal("stop", "a", "--wait")
    assert waited.exit_code == 0
    assert [line.split()[1] for line in waited.stdout.splitlines()] == ["running.", "stopping.", "cancelled."]


def test_another_end_than_the_wanted_one_is_an_error(api: Api) -> None:
    api.statuses = {"a": ["running", "failed"]}
    assert tidal("pause", "a", "--wait").exit_code == 1


def test_a_job_that_refuses_keeps_no_other_from_being_asked(api: Api) -> None:
    api.statuses = {"done": ["completed"], "a": ["running"]}
    asked = tidal("cancel", "missing", "done", "a")
    assert asked.exit_code == 1
    assert "there is no job 'missing'" in asked.stderr
    assert "job done is completed and takes no signal" in asked.stderr
    assert api.asked == [("a", "cancel")]


def test_all_means_those_that_take_it_and_needs_a_yes(api: Api) -> None:
    api.statuses = {"a": ["running"], "b": ["paused"], "c": ["completed"], "d": ["pending"]}
    refused = tidal("cancel", "--all")
    assert isinstance(refused.exception, InvalidInputError)
    assert (
        "would cancel 3 jobs; there is no terminal to ask for confirmation, so add --yes" in refused.exception.message
    )
    assert api.asked == []
    assert tidal("resume", "--all", "--yes").exit_code == 0
    assert api.asked == [("b", "resume")]
    assert tidal("cancel", "--all", "-y").exit_code == 0
    assert {name for name, signal_name in api.asked if signal_name == "cancel"} == {"a", "b", "d"}


def test_all_means_every_page_and_each_job_once(api: Api) -> None:
    api.statuses = {str(number): ["pending"] for number in range(1234)}
    api.moves = {"pending": {"7": ["running"]}}
    assert tidal("cancel", "--all", "--yes").exit_code == 0
    assert sorted(int(name) for name, _ in api.asked) == list(range(1234))


def test_without_jobs_nothing_is_sent(api: Api) -> None:
    api.statuses = {"a": ["running"]}
    for arguments in (("stop",), ("stop", "a", "--all")):
        refused = tidal(*arguments)
        assert isinstance(refused.exception, InvalidInputError)
    assert api.asked == []
