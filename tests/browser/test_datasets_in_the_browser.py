"""The life of a dataset in the browser: upload, training of a model on it, and deletion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.accessibility import AXE
from tests.browser.conftest import Site
from tests.browser.pictures import NEXT_FRAME, THEMES
from tests.integration.acceptance.stack import TINY_LM

Visit = Callable[..., Page]
DROPPED = """() => {
  const data = new DataTransfer();
  data.items.add(new File(["Once. ".repeat(9e5)], "once.txt"));
  return data;
}"""
TALES = [f"Tale {n}. The tide came in and the gulls went up, {n} of them." for n in range(300)]


@pytest.fixture(autouse=True)
def delete_what_the_test_made(site: Site) -> Iterator[None]:
    """Delete the experiments and datasets of this test at its end, because all tests use the same stack."""

    def experiments() -> set[str]:
        return {job["experimentId"] for job in site.http.get("/api/jobs?limit=200").json()["jobs"]}

    before = experiments()
    yield
    for experiment in experiments() - before:
        site.http.delete(f"/api/experiments/{experiment}").raise_for_status()
    for dataset in site.http.get("/api/datasets").json()["datasets"]:
        site.http.delete(f"/api/datasets/{dataset['name']}").raise_for_status()


def write_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps({"story": tale}) + "\n" for tale in TALES))
    return path


def choose(page: Page, file: Path) -> None:
    """Choose a file in the dialog that opens when the button is clicked."""
    with page.expect_file_chooser() as opened:
        page.get_by_role("button", name="Choose a file…").click()
    opened.value.set_files(file)


def row(page: Page, name: str) -> Locator:
    return page.locator("table.datasets tbody tr", has=page.get_by_role("button", name=f"Details of {name}"))


def test_a_file_becomes_a_dataset_a_training_and_nothing(
    site: Site, visit: Visit, tmp_path: Path, screenshots: Path
) -> None:
    page = visit("#/datasets")
    expect(page.get_by_role("heading", name="No datasets yet")).to_be_visible()
    page.screenshot(path=screenshots / "datasets-empty.png")
    file = write_lines(tmp_path / "Gull tales (2).jsonl")
    choose(page, file)
    expect(page.get_by_label("Name", exact=True)).to_have_value("Gull-tales-2")
    expect(page.get_by_label("Format")).to_have_value("jsonl")
    # The name of the text column is wrong: the server's error names the line, and the form keeps its values.
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("line 1 has no field 'text'")
    page.screenshot(path=screenshots / "datasets-wrong.png")
    page.get_by_label("Field that contains the text").fill("story")
    page.get_by_label("Name", exact=True).fill("gulls")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("Uploaded gulls; it is being tokenised.")).to_be_visible()
    # The change appears without a reload of the page.
    expect(row(page, "gulls").locator(".status")).to_have_text("ready", timeout=60_000)
    shown = site.http.get("/api/datasets/gulls").json()
    assert shown["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert row(page, "gulls").locator("td.num").first.inner_text() == str(len(TALES)) == str(shown["documents"])

    row(page, "gulls").get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value("gulls")
    expect(page.get_by_label("source", exact=True)).to_have_value("gulls")
    page.screenshot(path=screenshots / "new-job-on-a-dataset.png")
    page.get_by_label("Name", exact=True).fill("Gull speech")
    for section, values in TINY_LM.items():
        for name, value in values.items() if section != "data" else ():
            fields = page.locator(f"details:has(> summary strong:text-is('{section}'))")
            if not fields.evaluate("element => element.open"):
                fields.locator("summary").click()
            fields.get_by_label(name, exact=True).fill(value if isinstance(value, str) else json.dumps(value))
            fields.get_by_label(name, exact=True).blur()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="Gull speech")).to_be_visible()
    [job] = [job for job in site.http.get("/api/jobs").json()["jobs"] if job["name"] == "Gull speech"]
    assert site.job(job["id"])["payload"]["config"]["data"]["source"] == "gulls"

    site.wait_status(job["id"], "completed", 90)
    page.goto(f"{site.url}#/datasets")
    page.get_by_role("button", name="Details of gulls").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Gull speech")).to_be_visible()
    expect(dialog).to_contain_text(shown["sha256"])
    page.screenshot(path=screenshots / "datasets-details.png")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Delete gulls").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No datasets yet")).to_be_visible()
    assert site.http.get("/api/datasets/gulls").status_code == 404


def test_a_dropped_file_can_be_cancelled_and_leaves_nothing(site: Site, visit: Visit) -> None:
    page = visit("#/datasets")
    held: list[Route] = []
    # The upload is slowed down, as on a slow connection.
    page.route("**/api/datasets?*", lambda route: held.append(route))
    transfer = page.evaluate_handle(DROPPED)
    zone = page.locator(".drop")
    zone.dispatch_event("dragover", {"dataTransfer": transfer})
    expect(page.locator(".drop.over")).to_be_visible()
    zone.dispatch_event("drop", {"dataTransfer": transfer})
    page.get_by_role("button", name="Upload").click()
    bar = page.get_by_role("progressbar", name="Upload")
    expect(bar).to_be_visible()
    # The upload continues while the browser shows another page.
    page.get_by_role("link", name="Queue").first.click()
    page.get_by_role("link", name="Datasets").first.click()
    expect(bar).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(bar).to_have_count(0)
    page.unroute_all(behavior="ignoreErrors")
    assert site.http.get("/api/datasets").json() == {"datasets": []}


def test_without_a_token_there_is_a_way_to_sign_in(visit: Visit) -> None:
    page = visit("#/datasets", signed_in=False)
    expect(page.get_by_text("Uploading needs a token")).to_be_visible()
    expect(page.get_by_role("button", name="Choose a file…")).to_have_count(0)


def test_a_page_shows_that_the_api_does_not_answer_and_waits_for_it(site: Site, visit: Visit) -> None:
    page = visit("#/")
    page.locator("main h1").wait_for()
    page.route("**/api/datasets", lambda route: route.abort())
    page.goto(f"{site.url}#/datasets")
    expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
    page.unroute("**/api/datasets")
    expect(page.get_by_role("heading", name="No datasets yet")).to_be_visible()


@pytest.fixture
def two_datasets(site: Site) -> None:
    """Upload one dataset that becomes ready and one that fails."""
    for name, text in (("gulls", "<|endoftext|>".join(TALES)), ("too-small", "a")):
        job = site.http.post(f"/api/datasets?name={name}&format=txt", content=text.encode()).json()["job"]
        site.wait_status(job["id"], {"completed", "failed"}, 60)


def test_it_fits_every_width_in_both_themes_and_reads_well(
    two_datasets: None, visit: Visit, screenshots: Path, tmp_path: Path
) -> None:
    page = visit("#/datasets")
    expect(row(page, "too-small").locator(".status")).to_have_text("failed")
    choose(page, write_lines(tmp_path / "more.jsonl"))
    page.evaluate(AXE.read_text())
    for width in (390, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 900})
        assert not page.evaluate(f"{NEXT_FRAME}.then(() => document.documentElement.scrollWidth > innerWidth)"), width
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.evaluate(NEXT_FRAME)
            page.screenshot(path=screenshots / f"datasets-{width}-{theme}.png")
            report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert [
                (one["id"], one["nodes"][0]["html"][:200])
                for one in report["violations"]
                if one["impact"] in ("serious", "critical")
            ] == []


def test_all_of_it_is_reached_with_the_keyboard(two_datasets: None, visit: Visit) -> None:
    page = visit("#/datasets")
    row(page, "gulls").wait_for()
    page.keyboard.press("Tab")
    seen: set[str] = set()
    for _ in range(30):
        seen.add(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"))
        page.keyboard.press("Tab")
    assert {"Choose a file…", "Details of gulls", "Train on it", "Delete gulls", "Tokenise again"} <= seen
