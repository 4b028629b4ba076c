"""Every point appears in the chart exactly once: after a restart of the api, in a comparison, and when zoomed in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LONG_NAME, Site
from tests.integration.acceptance.stack import long_job

Visit = Callable[..., Page]
AWAY_SECONDS = 10


@pytest.fixture
def running(site: Site) -> Iterator[dict[str, Any]]:
    """Start a training that reports a few points per second; stop it at the end of the test."""
    config = long_job()
    config["training"] |= {"effective_batch_size": 32, "micro_batch_size": 2}
    job = site.submit(config=config, name="Spring tide")
    site.wait_status(job["id"], "running", 240)
    yield job
    site.signal(job["id"], "stop")
    site.wait_status(job["id"], ["cancelled", "completed"], 120)


def steps_of(page: Page, title: str) -> list[int]:
    """Return the steps that a chart contains. They are read from the CSV file that the chart exports."""
    page.wait_for_timeout(150)  # Chromium silently drops downloads if there are more than ten per second.
    with page.expect_download() as saved:
        page.get_by_role("button", name=f"{title}: save as CSV", exact=True).click()
    return [int(line.split(",")[0]) for line in Path(saved.value.path()).read_text().splitlines()[1:]]


def reported(site: Site, experiment_id: str, **query: Any) -> list[int]:
    """Request the training loss from the api without downsampling, and return its steps."""
    values = {"mode": "historical", "maxPoints": 50_000, "keys": "Losses/Total", **query}
    reply = site.http.get(f"/api/experiments/{experiment_id}/metrics", params=values).raise_for_status().json()
    assert reply["totalPoints"] < 50_000
    return [point["step"] for point in reply["series"]["Losses/Total"]]


def archived_bytes(site: Site, experiment_id: str) -> int:
    folder = site.folder / "experiments" / experiment_id / "metrics"
    return sum(path.stat().st_size for path in folder.glob("metrics-*.jsonl"))


def test_ten_seconds_without_the_api_lose_and_double_no_point(
    site: Site, visit: Visit, running: dict[str, Any]
) -> None:
    page = visit(site.view(running["experimentId"]))
    site.wait_for("points in the chart", lambda: len(steps_of(page, "Learning rate")) > 3, 120)
    before = steps_of(page, "Learning rate")[-1]

    site.kill("api")
    expect(page.get_by_text("The server does not answer. Trying again")).to_be_visible()
    until, size = time.monotonic() + AWAY_SECONDS, archived_bytes(site, running["experimentId"])
    site.wait_for(
        "points while the api is away",
        lambda: time.monotonic() > until and archived_bytes(site, running["experimentId"]) > size,
        120,
    )
    site.start("api", "api")
    expect(page.locator(".banner")).to_have_count(0)
    site.wait_for("later points in the chart", lambda: steps_of(page, "Learning rate")[-1] > before + 10, 120)

    site.signal(running["id"], "stop")
    site.wait_status(running["id"], "cancelled", 120)
    expect(page.locator(".run-card .status")).to_have_text("cancelled")
    known = reported(site, running["experimentId"])
    site.wait_for("the last point", lambda: steps_of(page, "Learning rate")[-1] == known[-1], 60)
    assert steps_of(page, "Learning rate") == known


def test_a_run_that_is_compared_goes_on(site: Site, visit: Visit, running: dict[str, Any]) -> None:
    page = visit(f"#/compare?ids={site.seeded['Slow cosine']},{running['experimentId']},20990101-000000-deleted")
    expect(page.get_by_text("1 of the runs was deleted.")).to_be_visible()
    chart = page.locator("section[aria-label='Loss: training']")
    expect(chart.locator(".legend button")).to_have_count(2)
    # The last points of the two trainings are at different steps, so the legend shows each step ("at 120").
    newest = chart.locator(".legend button", has_text="Spring tide").locator("small")
    first = newest.inner_text()
    assert re.fullmatch(r"at \d+", first)
    expect(newest).not_to_have_text(first)


def test_a_zoom_fetches_the_points_between_those_that_were_loaded(site: Site, visit: Visit) -> None:
    experiment = site.seeded[LONG_NAME]
    page = visit(site.view(experiment))
    whole = steps_of(page, "Learning rate")
    assert len(whole) < 6000 and whole[-1] == 6000
    page.get_by_label("To step").fill("3500")
    page.get_by_label("To step").press("Enter")
    page.get_by_label("From step").fill("3001")
    page.get_by_label("From step").press("Enter")
    expected = reported(site, experiment, fromStep=3001, toStep=3500)
    assert expected == list(range(3001, 3501))

    def zoomed() -> list[int]:
        return [step for step in steps_of(page, "Learning rate") if 3001 <= step <= 3500]

    site.wait_for("every point of the zoom", lambda: zoomed() == expected, 60)
    assert (everything := steps_of(page, "Learning rate")) == sorted(set(everything))
    page.locator("section[aria-label='Loss'] [role=img]").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Reset zoom")).to_have_count(0)
    site.wait_for("the points from before", lambda: steps_of(page, "Learning rate") == whole, 60)
