"""Comparisons, charts, results and texts in the browser. The pages also work without a token and are accessible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import AXE
from tests.browser.conftest import Site

Visit = Callable[..., Page]


def test_two_runs_are_compared_on_shared_axes(site: Site, visit: Visit) -> None:
    page = visit("#/")
    for name in ("Slow cosine", "Fast cosine"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare 2").click()
    chart = page.locator("section[aria-label='Loss: training']")
    expect(chart.locator(".legend button")).to_have_count(2)
    assert sorted(chart.locator(".legend button span").all_inner_texts()) == ["Fast cosine", "Slow cosine"]
    page.get_by_role("tab", name="Configuration").click()
    row = page.locator("tr", has_text="training.learning_rate")
    assert row.locator("td").all_inner_texts() == ["training.learning_rate", "0.002", "0.003"]


def test_a_chart_is_zoomed_walked_through_and_saved(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.seeded["Slow cosine"]))
    chart = page.locator("section[aria-label='Loss']")
    plot = chart.locator(".u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 60, steps=4)
    page.mouse.up()
    whole = page.get_by_role("button", name="Reset zoom")
    expect(whole).to_be_visible()
    whole.click()
    expect(whole).to_have_count(0)
    chart.locator("[role=img]").focus()
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("h3")).to_contain_text("at 1,500")
    with page.expect_download() as saved:
        chart.get_by_role("button", name="save as CSV").click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("step,") and len(lines) == 1501
    with page.expect_download() as saved:
        chart.get_by_role("button", name="save as PNG").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")


def test_samples_over_the_steps_are_a_table_with_a_row_per_step(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.seeded["Slow cosine"], "results"))
    table = page.get_by_role("region", name="Samples over the steps").get_by_role("table")
    expect(table.locator("th")).to_have_text(["Step", "Once upon a time", "The little cat"])
    expect(table.locator("tbody tr")).to_have_count(3)
    newest = table.locator("tbody tr").first.locator("td")
    expect(newest).to_have_text(["1,500", ", after 1500 steps, a cat", " <b>sat</b> on the mat."])


def test_a_text_streams_in_colour_and_two_panels_share_prompt_and_seed(site: Site, visit: Visit) -> None:
    page = visit("#/playground")
    page.get_by_label("Tokens").fill("12")
    page.get_by_label("Gating").select_option("fixed")
    page.get_by_role("button", name="Side by side").click()
    page.get_by_label("Gating").nth(1).select_option("fixed")
    page.get_by_role("button", name="Generate").click()
    notes = page.locator("[role=status]", has_text="tokens/s")
    expect(notes).to_have_count(2, timeout=60_000)
    one, other = (page.locator(".panels > section").nth(i) for i in range(2))
    assert one.locator(".tok").count() >= 1
    assert one.locator(".generated").inner_text() == other.locator(".generated").inner_text()
    assert "color-mix" in (one.locator(".tok").first.get_attribute("style") or "")
    expect(page.locator("section[aria-label='Modulation'] canvas")).to_be_visible()


def test_an_analysis_runs_is_saved_and_opened_again(site: Site, visit: Visit) -> None:
    page = visit("#/analysis")
    page.get_by_label("Modulation", exact=True).select_option("random")
    page.get_by_label("Tokens per sample").fill("8")
    page.get_by_label("Also compare texts").check()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("cell", name="Variance between prompts")).to_be_visible(timeout=60_000)
    assert page.locator(".trajectory").count() == 3
    assert page.locator(".sweep-text").count() == 9
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("link", name="batch, 3 prompts").click()
    expect(page.get_by_role("link", name="New analysis")).to_be_visible()
    assert "m = 0.5" in page.get_by_role("region", name="Sweep").inner_text()


def test_an_experiment_is_renamed_and_a_checkpoint_and_an_experiment_are_deleted(site: Site, visit: Visit) -> None:
    doomed = site.seeded["Driftwood"]
    (site.folder / "experiments" / doomed / "weights.safetensors").write_bytes(bytes(1000))
    page = visit(site.view(doomed, "checkpoints"))
    page.get_by_role("button", name="Delete weights.safetensors").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No checkpoints yet")).to_be_visible()
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Name", exact=True).fill("Flotsam")
    page.get_by_label("Tags", exact=True).fill("old, unused")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Flotsam")).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Experiments")).to_be_visible()
    assert site.http.get(f"/api/experiments/{doomed}").status_code == 404
    assert not (site.folder / "experiments" / doomed).exists()


def test_without_a_token_everything_is_shown_and_nothing_changed(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.first), signed_in=False)
    expect(page.get_by_role("heading", name="Tide pool")).to_be_visible()
    assert page.get_by_text("Read-only").is_visible()
    page.goto(site.url + "#/new")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("dialog")).to_contain_text("Sign in")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_results_of_a_controller_have_bars_with_intervals(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.seeded["Helmsman"], "results"))
    expect(page.get_by_text("The learned controller beat random").first).to_be_visible()
    rows = page.locator(".bar-row").all_inner_texts()
    assert len(rows) == 7, "four policies, and three differences to the learned controller"
    assert any(re.search(r"learned\s+0\.141\s+0\.133 to 0\.149", row) for row in rows)
    assert any(re.search(r"best constant\s+0\.139\s+0\.131 to 0\.147", row) for row in rows)
    expect(page.get_by_text("behaves like the constant m = 0.36").first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_main_pages_have_no_serious_barrier(site: Site, visit: Visit, theme: str) -> None:
    found = []
    page = visit("#/", theme=theme)
    others = (site.url + f"#/{name}" for name in ("new", "queue", "playground"))
    for address in (site.url + "#/", site.view(site.seeded["Helmsman"]), *others):
        page.goto(address)
        page.locator("main h1").wait_for()
        page.locator(".skeleton").first.wait_for(state="detached")
        if page.evaluate("typeof axe") == "undefined":
            page.evaluate(AXE.read_text())
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [
            (address, violation["id"], violation["nodes"][0]["html"][:200])
            for violation in report["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
    assert found == []


def test_the_page_reads_events_as_the_standard_defines(site: Site, visit: Visit) -> None:
    page = visit("#/")
    read = """
        async (text) => {
            const { readEvents } = await import([...document.scripts].map((s) => s.src).find((s) => s.includes("/js/"))
                .replace(/\\/js\\/.*/, "/js/lib/stream-connection.js"));
            const bytes = new TextEncoder().encode(text);
            const found = [];
            for (let border = 0; border <= bytes.length; border++) {
                const body = new ReadableStream({
                    start(controller) {
                        controller.enqueue(bytes.slice(0, border));
                        controller.enqueue(bytes.slice(border));
                        controller.close();
                    },
                });
                const events = [];
                for await (const event of readEvents(new Response(body))) events.push(event);
                found.push(JSON.stringify(events));
            }
            return [...new Set(found)];
        }
    """
    odd = "a\u2028b\u2029c\u0085d\x0be\x0cf 🐈"
    lines = [": on", "", "id: 7-0", "event: x", f"data: {odd}", "data", "", "id: 8\0", "data:2", "", "data: cut off"]
    events = [
        {"id": None, "event": "comment", "data": ""},
        {"id": "7-0", "event": "x", "data": f"{odd}\n"},
        {"id": None, "event": "message", "data": "2"},
    ]
    for line_end in ("\n", "\r", "\r\n"):
        read_events = page.evaluate(read, "\ufeff" + line_end.join(lines))
        assert [json.loads(one) for one in read_events] == [events]
