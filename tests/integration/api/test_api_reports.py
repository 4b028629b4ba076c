"""Reports over HTTP: they are stored, changed by one writer at a time, generated and exported.

A report is kept when its experiment is deleted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.analyses import RESULT
from tests.integration.api.conftest import BEARER, Api, RunApi


def chart(**fields: Any) -> str:
    return f"```chart\n{json.dumps(fields)}\n```"


def points(api: Api, experiment: str, kind: str, values: list[dict[str, float]]) -> None:
    folder = api.experiment_folder(experiment) / "metrics"
    folder.mkdir()
    rows = [
        {"step": at, "time": "2026-09-01T12:00:00Z", "attempt": 1, "values": point}
        for at, point in enumerate(values, 1)
    ]
    (folder / f"{kind}-1-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def experiment(api: Api) -> str:
    """Create an experiment whose loss falls from 4 to 1 and whose name contains characters that HTML must escape."""
    found = str(api.submit(name="First <b>")["experimentId"])
    points(api, found, "metrics", [{"Losses/Total": 4.0}, {"Losses/Total": 2.5}, {"Losses/Total": 1.0}])
    return found


def created(api: Api, markdown: str = "text", **fields: Any) -> dict[str, Any]:
    reply = api.admin.post("/api/reports", json={"title": "A report", "markdown": markdown, **fields})
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/api/reports/{reply.json()['id']}"
    return dict(reply.json())


def test_a_report_is_returned_unchanged_with_its_experiments(api: Api, experiment: str) -> None:
    saved = api.admin.post(f"/api/experiments/{experiment}/analyses", json={"result": RESULT}).json()["id"]
    text = (
        f"é \\ \u2028\n\n{chart(experiments=['lost'], metrics=['m'])}\n\n{chart(kind='trajectory', analysis=saved)}\n"
    )
    made = created(api, text, experimentIds=["other"])
    assert made["markdown"] == text
    assert (made["version"], made["pattern"]) == (1, None)
    assert made["experimentIds"] == ["other", "lost", experiment]
    assert api.http.get(f"/api/reports/{made['id']}").json() == made


def test_lists_are_paged_searched_and_narrowed_to_an_experiment(api: Api) -> None:
    for title, about in (("Tide", "a"), ("Pool", "a"), ("100% tide", "b")):
        created(api, title=title, experimentIds=[about])
    first = api.http.get("/api/reports", params={"limit": 2}).json()
    second = api.http.get("/api/reports", params={"limit": 2, "cursor": first["nextCursor"]}).json()
    assert [report["title"] for report in first["reports"] + second["reports"]] == ["100% tide", "Pool", "Tide"]
    assert second["nextCursor"] is None and "markdown" not in first["reports"][0]

    def titles(**wanted: str) -> list[str]:
        return [report["title"] for report in api.http.get("/api/reports", params=wanted).json()["reports"]]

    assert titles(search="TIDE") == ["100% tide", "Tide"]
    assert titles(search="0%") == ["100% tide"]
    assert titles(experiment="a") == ["Pool", "Tide"]
    assert api.http.get("/api/reports", params={"cursor": "x"}).status_code == 422


def test_the_second_of_two_concurrent_changes_is_a_conflict(api: Api) -> None:
    made = created(api)
    path = f"/api/reports/{made['id']}"
    first = api.admin.put(path, json={"title": "T", "markdown": "mine", "version": 1})
    assert (first.status_code, first.json()["version"], first.json()["markdown"]) == (200, 2, "mine")
    assert first.json()["updatedAt"] > made["updatedAt"] and first.json()["createdAt"] == made["createdAt"]
    second = api.admin.put(path, json={"title": "T", "markdown": "yours", "version": 1})
    assert (second.status_code, second.json()["code"]) == (409, "report_changed")
    assert second.json()["errors"] == [{"location": "body.version", "message": "the newest version is 2"}]
    assert api.http.get(path).json() == first.json()
    again = api.admin.put(path, json={"title": "T", "markdown": "mine", "version": 1})
    assert again.json() == first.json(), "the reply was lost and the request sent again"
    third = api.admin.put(path, json={"title": "T", "markdown": "yours", "version": 2, "experimentIds": ["x"]})
    assert (third.json()["version"], third.json()["experimentIds"]) == (3, ["x"])


def test_an_invalid_chart_is_rejected_with_its_line_and_changes_nothing(api: Api) -> None:
    made = created(api)
    bad = "one\n\n```chart\nkind: pie\n```\n"
    path = f"/api/reports/{made['id']}"
    for reply in (
        api.admin.post("/api/reports", json={"title": "t", "markdown": bad}),
        api.admin.put(path, json={"title": "t", "markdown": bad, "version": 1}),
    ):
        assert reply.status_code == 422
        [finding] = reply.json()["errors"]
        assert finding["location"] == "body.markdown"
        assert finding["message"].startswith("line 3: kind 'pie' is unknown")
    assert api.http.get(path).json() == made
    assert len(api.http.get("/api/reports").json()["reports"]) == 1


UNKEPT: list[dict[str, Any]] = [
    {"title": " ", "markdown": ""},
    {"title": "t"},
    {"title": "a\x00", "markdown": ""},
    {"title": "t", "markdown": "a\x00"},
    {"title": "t", "markdown": "x" * 100_001},
    {"title": "t", "markdown": "", "experimentIds": ["../x"]},
    {"title": "t", "markdown": "", "pattern": "full-report"},
]


@pytest.mark.parametrize("body", UNKEPT)
def test_only_valid_reports_are_stored(api: Api, body: dict[str, Any]) -> None:
    assert api.admin.post("/api/reports", json=body).status_code == 422
    assert api.http.get("/api/reports").json()["reports"] == []


def test_deleted_and_unknown_ones_are_404(api: Api) -> None:
    path = f"/api/reports/{created(api)['id']}"
    assert api.admin.delete(path).status_code == 204
    change = {"title": "t", "markdown": "", "version": 1}
    replies = [
        api.http.get(path),
        api.admin.put(path, json=change),
        api.admin.delete(path),
        api.http.get(f"{path}/export"),
        api.http.get(f"{path}/rendered"),
    ]
    assert [reply.status_code for reply in replies] == [404] * 5
    missing = api.admin.post("/api/reports/generate", json={"pattern": "full-report", "experimentId": "nosuch"})
    assert missing.status_code == 404


def test_writing_needs_a_token_and_reading_only_if_reads_are_closed(api: Api, serve: RunApi) -> None:
    path = f"/api/reports/{created(api)['id']}"
    writes = [
        ("POST", "/api/reports", {"title": "t", "markdown": ""}),
        ("POST", "/api/reports/generate", {"pattern": "full-report", "experimentId": "x"}),
        ("PUT", path, {"title": "t", "markdown": "", "version": 1}),
        ("DELETE", path, None),
        ("POST", "/api/reports/render", {"markdown": ""}),
    ]
    reads = [
        ("GET", "/api/reports", None),
        ("GET", "/api/reports/patterns", None),
        ("GET", path, None),
        ("GET", f"{path}/export", None),
        ("GET", f"{path}/rendered", None),
    ]
    assert [api.http.request(method, where, json=body).status_code for method, where, body in writes] == [401] * 5
    assert [api.http.request(method, where, json=body).status_code for method, where, body in reads] == [200] * 5
    with serve(require_auth_for_reads=True) as closed:
        assert [closed.http.request(m, where, json=body).status_code for m, where, body in reads] == [401] * 5
        assert closed.http.request("GET", path, headers=BEARER).status_code == 200


def test_a_report_is_generated_from_stored_data(api: Api, experiment: str) -> None:
    body = {"pattern": "experiment-overview", "experimentId": experiment}
    made = api.admin.post("/api/reports/generate", json=body)
    assert made.status_code == 201, made.text
    found = made.json()
    assert (found["title"], found["pattern"]) == ("Overview: First <b>", "experiment-overview")
    assert found["experimentIds"] == [experiment]
    text = found["markdown"]
    assert "The training loss fell from 4 (step 1) to 1 (step 3). This is the lowest value." in text
    assert "No validation loss is recorded." in text
    assert "There are no checkpoints." in text
    assert "| `model.d_model` | `16` |" in text
    assert f'"experiments": ["{experiment}"], "metrics": ["Losses/Total"]' in text
    titled = api.admin.post("/api/reports/generate", json={**body, "title": "Mine"}).json()
    assert (titled["title"], titled["markdown"]) == ("Mine", text)


def test_every_pattern_works_for_one_and_for_several_experiments(api: Api, experiment: str) -> None:
    other = api.submit(queue=True)["experimentId"]
    api.admin.post(f"/api/experiments/{experiment}/analyses", json={"result": RESULT, "name": "first look"})
    patterns = api.http.get("/api/reports/patterns").json()["patterns"]
    assert [pattern["name"] for pattern in patterns] == [
        "experiment-overview", "rl-analysis", "trajectory-report", "full-report",
    ]  # fmt: skip
    for pattern in patterns:
        body = {"pattern": pattern["name"], "experimentIds": [experiment, other, experiment]}
        made = api.admin.post("/api/reports/generate", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["experimentIds"] == [experiment, other]
        assert made.json()["title"].endswith("First <b> and 1 more")
    assert "Analysis first look" in made.json()["markdown"]
    for wrong in ({}, {"experimentIds": []}, {"experimentId": experiment, "experimentIds": [other]}):
        refused = api.admin.post("/api/reports/generate", json={"pattern": "full-report", **wrong})
        assert refused.status_code == 422


def test_rendering_returns_safe_parts_and_names_invalid_charts(api: Api) -> None:
    text = f"# A <script>\n\n{chart(experiments=['a'], metrics=['m'])}\n\n```chart\nkind: pie\n```\n"
    html, good, bad = api.admin.post("/api/reports/render", json={"markdown": text}).json()["parts"]
    assert (html["kind"], html["html"]) == ("html", "<h1>A &lt;script&gt;</h1>\n")
    assert good["kind"] == "chart" and good["line"] == 3
    assert good["chart"] == {
        "kind": "metrics", "experiments": ["a"], "metrics": ["m"], "title": None, "logScale": False,
    }  # fmt: skip
    assert (bad["kind"], bad["line"]) == ("problem", 7) and "pie" in bad["message"]


def test_an_export_shows_the_stored_data(api: Api, experiment: str) -> None:
    (api.experiment_folder(experiment) / "ablation_results.json").write_text(
        json.dumps(
            {
                "policies": {
                    "learned": {"total": {"mean": 0.5, "ci_low": 0.25, "ci_high": 0.75}, "length": {"mean": 7}}
                },
                "paired": {"learned_minus_fixed": {"total": {"mean": -0.125, "ci_low": -0.25, "ci_high": 0.0}}},
            }
        )
    )
    saved = api.admin.post(f"/api/experiments/{experiment}/analyses", json={"result": RESULT}).json()["id"]
    odd = {**RESULT, "sweepAnalysis": {"prompts": 5}}
    strange = api.admin.post(f"/api/experiments/{experiment}/analyses", json={"result": odd}).json()["id"]
    text = "\n\n".join(
        [
            f"[here](#/experiments/{experiment})",
            chart(experiments=[experiment, "nosuch"], metrics=["Losses/Total", "Nothing"], title="Loss"),
            chart(kind="ablation", experiment=experiment),
            chart(kind="ablation", experiment=experiment, paired=True),
            chart(kind="ablation", experiment=experiment, quantity="diversity"),
            chart(kind="trajectory", analysis=saved),
            chart(kind="trajectory", analysis=saved, prompt=2),
            chart(kind="sweep", analysis=saved),
            chart(kind="sweep", analysis=strange),
            chart(kind="sweep", analysis="ana_removed"),
        ]
    )
    made = created(api, text, title="Tide: é/one")
    page = api.http.get(f"/api/reports/{made['id']}/export")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-disposition"] == 'attachment; filename="tide-one.html"'
    assert "default-src 'none'" in page.headers["content-security-policy"]
    html = page.text
    assert html.count("<svg") == 4 and "<script" not in html and "href" not in html
    notes = [
        "First &lt;b&gt; has no values of Nothing.",
        "Experiment nosuch does not exist.",
        "The ablation of First &lt;b&gt; has no values of this quantity.",
        f"Analysis {saved} has no trajectory 2.",
        f"Analysis {saved} contains no sweep.",
        f"Analysis {strange} contains no sweep.",
        "Analysis ana_removed does not exist.",
    ]
    assert [note for note in notes if note not in html] == []
    plain = api.http.get(f"/api/reports/{made['id']}/export", params={"format": "md"})
    assert plain.headers["content-type"] == "text/markdown; charset=utf-8"
    for line in (
        "# Tide: é/one",
        "| First \\<b\\> · Losses/Total | 3 | 1 | 1 | 4 |",
        "| learned | 0.5 | 0.25 to 0.75 |",
        "| learned minus fixed | −0.125 | −0.25 to 0 |",
        "| modulation | 2 | 0.375 | 0.125 | 0.375 |",
    ):
        assert line in plain.text.split("\n"), line
    assert api.http.get(f"/api/reports/{made['id']}/export?format=pdf").status_code == 422


def test_a_report_outlives_its_experiment(api: Api, tmp_path: Path) -> None:
    job = api.submit()
    experiment = job["experimentId"]
    points(api, experiment, "metrics", [{"Losses/Total": 4.0}])
    made = api.admin.post("/api/reports/generate", json={"pattern": "full-report", "experimentId": experiment}).json()
    assert "<svg" in api.http.get(f"/api/reports/{made['id']}/export").text
    assert api.admin.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
    assert api.admin.delete(f"/api/experiments/{experiment}").status_code == 204
    assert api.http.get(f"/api/reports/{made['id']}").json() == made
    assert [report["id"] for report in api.http.get(f"/api/reports?experiment={experiment}").json()["reports"]] == [
        made["id"]
    ]
    page = api.http.get(f"/api/reports/{made['id']}/export").text
    assert f"Experiment {experiment} does not exist." in page and "<svg" not in page
    change = {"title": "Kept", "markdown": made["markdown"], "version": 1}
    assert api.admin.put(f"/api/reports/{made['id']}", json=change).status_code == 200
