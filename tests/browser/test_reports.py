"""Reports: generation from a template, automatic saving, two authors at once, export, screenshots, accessibility."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import AXE
from tests.browser.charts import newest_point, wait_for_more
from tests.browser.conftest import Site
from tests.browser.pictures import NEXT_FRAME, THEMES, WIDTHS
from tests.integration.acceptance.stack import long_job

Visit = Callable[..., Page]


def generate_report(site: Site, pattern: str, *names: str, title: str) -> str:
    """Generate a report through the api and return its id."""
    body = {"pattern": pattern, "experimentIds": [site.seeded[name] for name in names], "title": title}
    reply = site.http.post("/api/reports/generate", json=body)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def stored(site: Site, report: str) -> dict[str, Any]:
    return dict(site.http.get(f"/api/reports/{report}").json())


def wait_until_loaded(page: Page) -> None:
    page.locator("main h1").wait_for()
    page.locator(".skeleton").first.wait_for(state="detached")


def test_a_report_is_made_from_a_pattern_and_shows_live_charts(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.seeded["Helmsman"]))
    page.get_by_role("button", name="New report").click()
    page.get_by_role("radio", name=re.compile("^Controller")).check()
    page.get_by_label("Experiments").select_option(label="Slow cosine (Language model, imported)")
    page.get_by_role("button", name="Remove Slow cosine").click()
    page.get_by_label("Title").fill("What the helmsman learned")
    page.get_by_role("button", name="Create report").click()
    expect(page.get_by_role("heading", name="What the helmsman learned")).to_be_visible()
    expect(page.get_by_role("heading", name="Did the controller beat its baselines?")).to_be_visible()
    expect(page.get_by_text("No: the controller did not beat all of its baselines.")).to_be_visible()
    expect(page.locator("section[aria-label='Episode reward'] canvas")).to_be_visible()
    expect(page.locator("section[aria-label='Reward per token by policy'] .bar-row")).to_have_count(4)
    assert page.url.split("#")[1].startswith("/reports/rep_")
    page.goto(site.url + "#/reports")
    row = page.locator("tr", has_text="What the helmsman learned")
    expect(row).to_contain_text("Controller")


def test_a_chart_in_a_report_follows_a_training(site: Site, visit: Visit) -> None:
    job = site.submit(config=long_job(), name="Followed")
    block = {"experiments": [job["experimentId"]], "metrics": ["Losses/Total"], "title": "Loss"}
    body = {"title": "While it runs", "markdown": f"```chart\n{json.dumps(block)}\n```\n"}
    report = site.http.post("/api/reports", json=body).json()["id"]
    page = visit(f"#/reports/{report}")  # The chart has no points before the job runs.
    site.wait_status(job["id"], "running", 60)
    wait_for_more(page, 0)
    wait_for_more(page, newest_point(page) + 3)
    assert site.http.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
    site.wait_status(job["id"], "cancelled", 60)


def test_writing_saves_itself_and_survives_a_reload(site: Site, visit: Visit) -> None:
    report = generate_report(site, "experiment-overview", "Slow cosine", title="Notes on cosine")
    page = visit(f"#/reports/{report}?mode=edit")
    text = page.get_by_label("Text")
    text.fill("## Mine\n\nIt is <b>fine</b>.\n\n```chart\nkind: pie\n```\n")
    preview = page.get_by_role("region", name="Preview")
    expect(preview.get_by_role("heading", name="Mine")).to_be_visible()
    expect(preview).to_contain_text("It is <b>fine</b>.")
    expect(preview).to_contain_text("Line 5 kind 'pie' is unknown")
    expect(page.get_by_role("status").filter(has_text="Not saved: see below")).to_be_visible()
    assert stored(site, report)["version"] == 1
    text.fill("## Mine\n\n")
    page.get_by_role("button", name="Insert a chart").click()
    page.keyboard.type(site.seeded["Slow cosine"])
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    expect(preview.locator("section[aria-label='Loss'] canvas")).to_be_visible()
    page.get_by_label("Title").fill("Renamed")
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Renamed")).to_be_visible()
    expect(page.get_by_label("Text")).to_have_value(re.compile("## Mine"))
    found = stored(site, report)
    assert (found["title"], found["experimentIds"]) == ("Renamed", [site.seeded["Slow cosine"]])
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_label("Text")).to_have_count(0)
    expect(page.get_by_role("heading", name="Mine")).to_be_visible()


def test_of_two_writers_neither_loses_text_without_a_choice(site: Site, visit: Visit) -> None:
    report = generate_report(site, "trajectory-report", "Slow cosine", title="Two hands")
    page = visit(f"#/reports/{report}?mode=edit")
    text = page.get_by_label("Text")
    text.wait_for()

    def other(words: str) -> None:
        version = stored(site, report)["version"]
        body = {"title": "Two hands", "markdown": words, "version": version}
        assert site.http.put(f"/api/reports/{report}", json=body).status_code == 200

    other("theirs, first")
    text.fill("mine, first")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Another user saved this report")
    assert stored(site, report)["markdown"] == "theirs, first"
    page.get_by_role("button", name="Show their version").click()
    expect(page.get_by_role("dialog")).to_contain_text("theirs, first")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Save my version").click()
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    assert stored(site, report)["markdown"] == "mine, first"
    other("theirs, second")
    text.fill("mine, second")
    page.get_by_role("button", name="Use their version").click()
    expect(text).to_have_value("theirs, second")
    assert stored(site, report)["markdown"] == "theirs, second"


def test_a_text_written_while_the_server_does_not_answer_is_saved_later(site: Site, visit: Visit) -> None:
    report = generate_report(site, "trajectory-report", "Slow cosine", title="Offline")
    page = visit(f"#/reports/{report}?mode=edit")
    page.get_by_label("Text").wait_for()
    page.context.set_offline(True)
    page.get_by_label("Text").fill("written at sea")
    expect(page.get_by_role("status").filter(has_text="Not saved: the server does not answer")).to_be_visible()
    page.get_by_role("link", name="Queue").first.click()  # The page can be left without losing the text.
    page.get_by_role("heading", name="Queue and workers").wait_for()
    page.context.set_offline(False)
    page.goto(site.url + "#/reports")
    page.get_by_role("link", name="Offline").click()
    expect(page.get_by_text("written at sea")).to_be_visible()
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    assert stored(site, report)["markdown"] == "written at sea"


def test_a_report_is_exported_opens_alone_and_is_deleted(site: Site, visit: Visit, tmp_path: Path) -> None:
    report = generate_report(site, "full-report", "Helmsman", "Slow cosine", title="Both")
    page = visit(f"#/reports/{report}")
    wait_until_loaded(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export as Markdown").click()
    assert saved.value.suggested_filename == "both.md"
    assert Path(saved.value.path()).read_text().startswith("# Both\n")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export as HTML").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    alone = page.context.new_page()
    messages: list[str] = []
    alone.on("console", lambda message: messages.append(message.text))
    alone.on("request", lambda request: messages.append(request.url) if not request.url.startswith("file:") else None)
    alone.goto(file.as_uri())
    expect(alone.get_by_role("heading", name="Both")).to_be_visible()
    assert alone.locator("svg[role=img]").count() >= 8
    assert alone.evaluate("getComputedStyle(document.querySelector('figure')).borderTopWidth") == "1px"
    assert alone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert messages == []
    alone.close()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Reports")).to_be_visible()
    assert site.http.get(f"/api/reports/{report}").status_code == 404


def test_without_a_token_a_report_is_read_and_not_written(site: Site, visit: Visit) -> None:
    report = generate_report(site, "experiment-overview", "Slow cosine", title="For everybody")
    page = visit(f"#/reports/{report}?mode=edit", signed_in=False)
    expect(page.locator("section[aria-label='Loss, nats per token'] canvas")).to_be_visible()
    assert page.get_by_label("Text").count() == 0
    assert page.get_by_role("button", name="Delete").count() == 0
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("dialog")).to_contain_text("Sign in")


def test_a_chart_shows_that_its_experiment_does_not_exist(site: Site, visit: Visit) -> None:
    block = '```chart\n{"experiments": ["nosuch"], "metrics": ["Losses/Total"], "title": "Lost"}\n```\n'
    made_by_hand = site.http.post("/api/reports", json={"title": "Driftwood", "markdown": block}).json()["id"]
    page = visit(f"#/reports/{made_by_hand}")
    expect(page.get_by_text("Experiment nosuch does not exist.")).to_be_visible()


def test_the_text_of_a_report_is_shown_with_a_result_that_cannot_be_drawn(site: Site, visit: Visit) -> None:
    result = {"kind": "sweep", "request": {}, "trajectories": [], "sweepAnalysis": {"prompts": 5}}
    where = f"/api/experiments/{site.seeded['Slow cosine']}/analyses"
    body = {"result": {**result, "tokensGenerated": 1, "elapsedMs": 1.0}}
    analysis = site.http.post(where, json=body).json()["id"]
    text = f"Before\n\n```chart\nkind: sweep\nanalysis: {analysis}\n```\n\nAfter\n"
    report = site.http.post("/api/reports", json={"title": "Odd", "markdown": text}).json()["id"]
    page = visit(f"#/reports/{report}")
    expect(page.get_by_text("cannot be drawn")).to_be_visible()
    expect(page.get_by_text("Before")).to_be_visible()
    expect(page.get_by_text("After")).to_be_visible()


@pytest.fixture
def pictured(site: Site) -> dict[str, str]:
    report = generate_report(
        site, "full-report", "Helmsman", "Slow cosine", title="Helmsman and slow cosine, side by side"
    )
    body = {"pattern": "experiment-overview", "experimentId": site.first}
    real = site.http.post("/api/reports/generate", json=body).json()["id"]
    return {
        "report-real": f"#/reports/{real}",
        "reports": "#/reports",
        "report": f"#/reports/{report}",
        "report-editing": f"#/reports/{report}?mode=edit",
    }


def test_the_pages_fit_every_width(site: Site, visit: Visit, pictured: dict[str, str], screenshots: Path) -> None:
    page = visit("#/reports")
    too_wide = []
    for name, address in pictured.items():
        page.goto(site.url + address)
        wait_until_loaded(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate(f"{NEXT_FRAME}.then(() => document.documentElement.scrollWidth > innerWidth)"):
                too_wide.append((name, width))
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.evaluate(NEXT_FRAME)
                page.screenshot(
                    path=screenshots / f"{name}-{width}-{theme}.png", full_page=name in ("report", "report-real")
                )
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(site.url + "#/reports")
    page.get_by_role("button", name="New report").first.click()
    page.get_by_role("dialog").wait_for()
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        page.screenshot(path=screenshots / f"report-new-{theme}.png")
    assert too_wide == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_have_no_serious_barrier(site: Site, visit: Visit, pictured: dict[str, str], theme: str) -> None:
    found = []
    page = visit("#/reports", theme=theme)
    for address in pictured.values():
        page.goto(site.url + address)
        wait_until_loaded(page)
        if page.evaluate("typeof axe") == "undefined":
            page.evaluate(AXE.read_text())
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [
            (address, violation["id"], violation["nodes"][0]["html"][:200])
            for violation in report["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
    assert found == []
