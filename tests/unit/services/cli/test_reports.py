"""The requests, the output and the files of `tidal reports` with a fake api."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from common.errors import ConflictError, InvalidInputError, NotFoundError
from services.cli.commands import reports
from services.cli.main import app
from tests.unit import api_documents as documents
from tidal_client import Client

REPORT = {
    "id": "rep_1",
    "title": "Tide [red]pool",
    "pattern": "full-report",
    "experimentIds": ["a", "b"],
    "version": 3,
    "createdAt": "2026-01-31T12:00:00Z",
    "updatedAt": "2026-01-31T12:00:00Z",
}
EXPORT = (
    '# Tide\n\n**bold** \x1b[2J\n\n```chart\n{"metrics": ["m"]}\n```\n\n|  | last value |\n|---|--:|\n| m | 1.5 |\n'
)


class Api:
    """A fake api that answers by method and path, and records the requests."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.reports: list[dict[str, Any]] = [REPORT]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, dict(request.url.params)
        body = json.loads(request.content) if request.content else query
        self.sent.append((request.method, path, body))
        if path == "/api/experiments":
            experiment = documents.experiment(id="newest")
            return httpx.Response(200, json={"experiments": [experiment]})
        if path == "/api/reports":
            return httpx.Response(200, json={"reports": self.reports})
        if path == "/api/reports/generate":
            return httpx.Response(201, json={**REPORT, "markdown": "text"})
        if path == "/api/reports/rep_1/export":
            return httpx.Response(200, content=(EXPORT if query["format"] == "md" else "<p>é</p>").encode())
        if path == "/api/reports/rep_1":
            if request.method == "PUT" and body["version"] != 3:
                return httpx.Response(409, json={"detail": "changed meanwhile", "code": "report_changed"})
            return httpx.Response(204 if request.method == "DELETE" else 200, json={**REPORT, "markdown": "raw *text*"})
        return httpx.Response(404, json={"detail": "nothing there"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    played = Api()
    monkeypatch.setattr(
        reports, "connect", lambda url, token: Client("http://tidal", transport=httpx.MockTransport(played))
    )
    return played


@pytest.fixture
def tidal() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["reports", *arguments])


def test_reports_are_listed_as_text_and_as_json(api: Api, tidal: Callable[..., Result]) -> None:
    result = tidal("list", "--search", "tide", "-e", "a", "--limit", "5")
    assert result.exit_code == 0
    assert "Tide [red]pool" in result.output and "full-report" in result.output
    assert api.sent == [("GET", "/api/reports", {"search": "tide", "experiment": "a", "limit": "5"})]
    (listed,) = json.loads(tidal("list", "--json").output)
    assert listed == REPORT
    api.reports = []
    assert "tidal reports generate" in tidal("list").output


def test_a_report_is_made_of_the_newest_experiment_unless_some_are_named(
    api: Api, tidal: Callable[..., Result]
) -> None:
    assert "Generated rep_1" in tidal("generate").output
    assert tidal("generate", "a", "b", "-p", "rl-analysis", "--title", "Mine").exit_code == 0
    asked = [body for _, path, body in api.sent if path == "/api/reports/generate"]
    assert asked == [
        {"pattern": "full-report", "experimentIds": ["newest"]},
        {"pattern": "rl-analysis", "experimentIds": ["a", "b"], "title": "Mine"},
    ]
    assert tidal("generate", "-p", "other").exit_code == 2


def test_a_report_is_shown_with_end_values_in_place_of_charts(api: Api, tidal: Callable[..., Result]) -> None:
    text = tidal("show", "last").output
    assert "bold" in text and "1.5" in text
    # To a pipe, the command writes unchanged Markdown, which keeps every id on one line.
    assert "```chart" not in text and "**bold** ␛[2J" in text and "\x1b" not in text
    assert tidal("show", "rep_1", "--raw").output == "raw *text*\n"
    assert json.loads(tidal("show", "rep_1", "--json").output)["markdown"] == "raw *text*"


def test_an_export_goes_to_a_file_or_to_the_output_and_replaces_nothing(
    api: Api, tidal: Callable[..., Result], tmp_path: Path
) -> None:
    assert tidal("export", "rep_1").output == "<p>é</p>"
    target = tmp_path / "new" / "report.md"
    assert tidal("export", "rep_1", "-f", "md", "-o", str(target)).exit_code == 0
    assert target.read_bytes().decode() == EXPORT
    asked = len(api.sent)
    refused = tidal("export", "rep_1", "-o", str(target))
    assert isinstance(refused.exception, ConflictError) and len(api.sent) == asked
    assert tidal("export", "rep_1", "-o", str(target), "--force").exit_code == 0
    assert target.read_text() == "<p>é</p>"


def test_reports_are_deleted_by_id_only(api: Api, tidal: Callable[..., Result]) -> None:
    assert tidal("delete", "rep_1").exit_code == 0
    assert api.sent == [("DELETE", "/api/reports/rep_1", {})]
    assert isinstance(tidal("delete", "rep_1", "last").exception, InvalidInputError)
    assert len(api.sent) == 1
    assert isinstance(tidal("delete", "rep_9").exception, NotFoundError)
    api.reports = []
    assert isinstance(tidal("show", "last").exception, NotFoundError)


def test_the_client_changes_what_it_has_seen(api: Api) -> None:
    with Client("http://tidal", transport=httpx.MockTransport(api)) as client:
        seen = client.report("rep_1")
        client.change_report(seen, markdown="new")
        assert api.sent[-1] == (
            "PUT",
            "/api/reports/rep_1",
            {"version": 3, "title": REPORT["title"], "markdown": "new"},
        )
        with pytest.raises(ConflictError, match="changed meanwhile"):
            client.change_report(seen.model_copy(update={"version": 2}), title="t")
