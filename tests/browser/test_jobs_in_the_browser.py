"""The life of a job in the browser: form errors, live charts, a reload, a restart of the api, a stop request."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.charts import newest_point, wait_for_more
from tests.browser.conftest import Site
from tests.integration.acceptance.stack import TOKEN, long_job

Visit = Callable[..., Page]


def test_a_wrong_value_is_shown_at_its_field_and_nothing_is_submitted(site: Site, visit: Visit) -> None:
    jobs = site.http.get("/api/jobs").json()["jobs"]
    page = visit("#/new")
    page.get_by_label("d_model").fill("30")
    page.get_by_label("d_model").blur()
    page.get_by_role("button", name="Check (dry run)").click()
    message = page.locator(".message.bad, .field .wrong")
    expect(message.first).to_be_visible()
    assert "model" in page.locator(".submit, .section").first.inner_text()
    assert page.locator(".message.good").count() == 0
    page.get_by_label("d_model").fill("64")
    page.get_by_label("d_model").blur()
    page.get_by_label("source", exact=True).fill("builtin:stories")
    page.get_by_label("source", exact=True).blur()
    page.get_by_role("button", name="Check (dry run)").click()
    expect(page.get_by_text("Valid.")).to_be_visible()
    assert site.http.get("/api/jobs").json()["jobs"] == jobs


def test_a_job_is_submitted_watched_reloaded_cut_off_and_stopped(site: Site, visit: Visit) -> None:
    page = visit("#/new", signed_in=False)
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("Token", exact=True).fill("wrong-token")
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("This token is wrong")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.get_by_label("Name", exact=True).fill("Long swell")
    for section, values in long_job().items():
        for name, value in values.items():
            field = page.locator(f"details:has(> summary strong:text-is('{section}'))")
            if not field.evaluate("element => element.open"):
                field.locator("summary").click()
            box = field.get_by_label(name, exact=True)
            box.fill(value if isinstance(value, str) else json.dumps(value))
            box.blur()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="Long swell")).to_be_visible()
    expect(page.locator(".run-card .status")).to_have_text("running", timeout=60_000)
    wait_for_more(page, 0)
    controls = page.locator(".job-controls button")
    assert [text.strip() for text in controls.all_inner_texts()][:-1] == ["Pause", "Complete", "Stop", "Cancel"]

    before = newest_point(page)
    wait_for_more(page, before)
    page.reload()
    wait_for_more(page, before)

    # The api stops while the training continues. The page shows this, and continues when the api runs again.
    site.kill("api")
    expect(page.get_by_text("The server does not answer. Trying again")).to_be_visible()
    before = newest_point(page)
    site.start("api", "api")
    wait_for_more(page, before + 5)
    expect(page.locator(".banner")).to_have_count(0)

    page.get_by_role("tab", name="Log").click()
    expect(page.locator(".log .line").first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.locator(".run-card .status")).to_have_text("cancelled", timeout=60_000)
    [job] = [job for job in site.http.get("/api/jobs").json()["jobs"] if job["name"] == "Long swell"]
    assert (job["status"], job["checkpointRef"] is not None) == ("cancelled", True)
    expect(page.get_by_role("link", name="Resume from the newest checkpoint")).to_be_visible()
    assert site.processes["worker"].poll() is None
