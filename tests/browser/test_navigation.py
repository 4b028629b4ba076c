"""Navigation: invalid links, a page that throws an exception, Back and Forward, titles, drafts, invalid replies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Site

Visit = Callable[..., Page]


def test_an_invalid_link_shows_an_error_and_a_way_back(site: Site, visit: Visit) -> None:
    page = visit("#/")
    for address, heading, title in [
        ("#/experiments/100%", "This page does not exist", "Not found · Tidal"),
        ("#/%E0%A4%A", "This page does not exist", "Not found · Tidal"),
        ("#/tides", "This page does not exist", "Not found · Tidal"),
        ("#/constructor", "This page does not exist", "Not found · Tidal"),
        (f"#/experiments/{site.first}/logs", "This page does not exist", "Not found · Tidal"),
        ("#/experiments/nosuch", "Not found", "Experiments · Tidal"),
        ("#/experiments/..%2f..", "Not found", "Experiments · Tidal"),
        ("#/jobs/nosuch", "Not found", "Job · Tidal"),
        ("#/jobs", "This page does not exist", "Not found · Tidal"),
        ("#/reports/nosuch", "Not found", "Reports · Tidal"),
        ("#/analysis?saved=nosuch", "Not found", "Analysis · Tidal"),
        ("#/new?resume=nosuch", "Not found", "New job · Tidal"),
        ("#/new?like=a%2Fb%3Fc", "Not found", "New job · Tidal"),
        ("#/?type=boat", "The request failed", "Experiments · Tidal"),
        ("#/?status=%E0%A4%A", "The request failed", "Experiments · Tidal"),
    ]:
        page.goto(site.url + address)
        expect(page.get_by_role("heading", name=heading, exact=True), address).to_be_visible()
        expect(page, address).to_have_title(title)
        back = page.get_by_role("main").get_by_role("link", name="To the experiments")
        assert back.get_attribute("href") == "#/"
    back.click()
    expect(page.get_by_role("link", name="Helmsman")).to_be_visible()
    # A parameter in the URL whose value is unknown is ignored.
    page.goto(site.view(site.seeded["Helmsman"], "nosuch&with=%"))
    expect(page.get_by_role("tab", name="Charts")).to_have_attribute("aria-selected", "true")
    page.goto(f"{site.url}#/compare?ids={site.seeded['Helmsman']},%,nosuch&tab=nosuch")
    expect(page.get_by_role("tab", name="Charts")).to_have_attribute("aria-selected", "true")
    page.goto(f"{site.url}#/new?type=boat&data=%")
    expect(page.get_by_label("Pretrains a language model")).to_be_checked()


def test_a_page_that_throws_shows_what_happened_and_the_frame_stays(site: Site, visit: Visit) -> None:
    page = visit("#/")
    page.route("**/api/queue", lambda route: route.fulfill(json={"queues": [None]}))
    page.get_by_role("link", name="Queue").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This page cannot be shown")
    expect(alert).to_contain_text("An error occurred")
    expect(page).to_have_title("Error · Tidal")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.unroute("**/api/queue")
    page.get_by_role("navigation").get_by_role("link", name="Experiments").click()
    expect(page.get_by_role("link", name="Helmsman")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("region", name="Limits").first).to_be_visible()
    # An error of a request is shown even if the page does not handle it.
    page.route("**/api/experiments?*", lambda route: None)
    page.evaluate("""async () => {
      const api = await import(document.querySelector('link[href$="js/lib/api.js"]').href);
      api.get("api/jobs/nosuch");
    }""")
    expect(page.locator(".toasts")).to_contain_text("nosuch")


def test_back_undoes_tabs_filters_searches_and_choices_and_each_view_has_a_title(site: Site, visit: Visit) -> None:
    page = visit("#/queue")
    expect(page).to_have_title("Queue · Tidal")
    page.get_by_role("link", name="Experiments").click()
    expect(page).to_have_title("Experiments · Tidal")
    page.get_by_label("All types").select_option("lm")
    expect(page.get_by_role("link", name="Helmsman")).to_have_count(0)
    search = page.get_by_label("Search by name or id")
    search.press_sequentially("cosine", delay=20)
    expect(page.get_by_role("link", name="Tide pool")).to_have_count(0)
    search.press_sequentially("x", delay=20)
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    search.press("Backspace")
    page.get_by_label("Compare Slow cosine").check()
    page.get_by_label("Compare Fast cosine").check()
    page.reload()
    expect(page.get_by_role("button", name="Compare 2")).to_be_visible()
    expect(search).to_have_value("cosine")
    page.get_by_role("button", name="Compare 2").click()
    expect(page).to_have_title(re.compile(r"^(Slow cosine, Fast|Fast cosine, Slow) cosine · Compare · Tidal$"))
    page.get_by_role("tab", name="Configuration").click()
    page.get_by_role("button", name="Remove Slow cosine").click()
    expect(page).to_have_title("Fast cosine · Compare · Tidal")
    page.go_back()
    expect(page.get_by_role("button", name="Remove Slow cosine")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tab", name="Charts")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_role("button", name="Compare 2")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Compare Fast cosine")).not_to_be_checked()
    expect(page.get_by_label("Compare Slow cosine")).to_be_checked()
    page.go_back()
    expect(page.get_by_label("Compare Slow cosine")).not_to_be_checked()
    page.go_back()  # All typing in the search field is one entry in the browser's history.
    expect(search).to_have_value("")
    expect(page.get_by_label("All types")).to_have_value("lm")
    page.go_back()
    expect(page.get_by_role("link", name="Helmsman")).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("link", name="Helmsman")).to_have_count(0)

    page.goto(site.view(site.first, "config"))
    expect(page).to_have_title("Tide pool · Configuration · Tidal")
    page.get_by_label("Compare with").select_option(label="Slow cosine")
    expect(page.get_by_role("columnheader", name="Slow cosine")).to_be_visible()
    page.reload()
    expect(page.get_by_role("columnheader", name="Slow cosine")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("columnheader", name="Defaults")).to_be_visible()
    page.get_by_role("tab", name="Log").click()
    expect(page).to_have_title("Tide pool · Log · Tidal")
    page.go_back()
    expect(page).to_have_title("Tide pool · Configuration · Tidal")


def test_the_form_of_a_job_is_kept_marks_what_is_wrong_and_comes_back_after_submit(site: Site, visit: Visit) -> None:
    page = visit("#/new")
    name, width = page.get_by_label("Name", exact=True), page.get_by_label("d_model", exact=True)
    count = page.get_by_role("region", name="Configuration").locator("header .note")
    expect(count).to_have_text("No changes")
    # A value that equals the current one is not shown as a change, even if it is written differently.
    set_already = {"d_model": "0", "learning_rate": "00", "source": ""}
    for label, suffix in set_already.items():
        field = page.get_by_label(label, exact=True)
        value = field.input_value()
        field.fill("7")
        field.blur()
        expect(count).to_have_text("1 changed")
        field.fill(f"{value}.{suffix}" if label == "d_model" else value + suffix)
        field.blur()
        expect(count).to_have_text("No changes")
    page.get_by_label("Text", exact=True).select_option("builtin:stories")
    page.get_by_label("Text", exact=True).select_option("")
    expect(count).to_have_text("No changes")
    expect(page.get_by_role("button", name="Discard draft")).to_have_count(0)

    name.fill("Regatta")
    width.fill("wide")
    width.blur()
    page.get_by_label("max_steps", exact=True).fill("-5")
    page.get_by_label("max_steps", exact=True).blur()
    page.get_by_label("Search settings").fill("layers")
    page.get_by_role("button", name="Check (dry run)").click()
    expect(width).to_be_focused()
    for field in (width, page.get_by_label("max_steps", exact=True)):
        expect(field).to_have_attribute("aria-invalid", "true")
        field_colour = field.evaluate("element => getComputedStyle(element).borderTopColor")
        assert field_colour == page.locator(".wrong").first.evaluate("element => getComputedStyle(element).color")
    expect(page.locator(".wrong")).to_have_text(["Must be a whole number, got 'wide'", re.compile("^Must be greater")])
    expect(page.get_by_role("alert")).to_have_text("Some values are invalid. Their fields are marked.")
    text = page.get_by_role("main").inner_text()
    assert "body." not in text and "config.model" not in text
    assert text.count(page.locator(".wrong").first.inner_text()) == 1

    page.reload()
    expect(name).to_have_value("Regatta")
    expect(width).to_have_value("wide")
    page.get_by_label("Trains a controller").check()
    expect(name).to_have_value("Regatta")
    page.get_by_label("Tags").fill("regatta")
    page.go_back()
    expect(page.get_by_label("Pretrains a language model")).to_be_checked()
    expect(page.get_by_label("Tags")).to_have_value("")
    expect(width).to_have_value("wide")
    page.get_by_role("button", name="Discard draft").click()
    expect(name).to_have_value("")
    expect(count).to_have_text("No changes")
    page.reload()
    expect(name).to_have_value("")

    name.fill("Regatta")
    width.fill("64")
    width.blur()
    page.get_by_label("Not before").fill("2100-01-01T00:00")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="Regatta")).to_be_visible()
    page.go_back()
    expect(name).to_have_value("Regatta")
    expect(width).to_have_value("64")
    page.go_forward()
    expect(page).to_have_title("Regatta · Charts · Tidal")
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog")
    assert dialog.locator(".dialog-foot button").all_inner_texts() == ["Keep the job", "Cancel job"]
    expect(dialog.get_by_role("button", name="Keep the job")).to_be_focused()
    dialog.get_by_role("button", name="Cancel job").click()
    expect(page.locator(".run-card .status")).to_have_text("cancelled")


def stream(*events: tuple[str, dict[str, Any]]) -> str:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)


def test_a_generation_that_fails_shows_its_error_and_temperature_zero_is_sent(site: Site, visit: Visit) -> None:
    page = visit("#/playground")
    token = ("token", {"index": 0, "text": " tide", "tokenId": 1, "modulation": None, "logprob": -1.0})
    done = {"text": " tide", "tokensGenerated": 1, "elapsedMs": 5}
    replies: list[tuple[str, str]] = [
        (stream(token, ("done", {**done, "finishReason": "cancelled"})), "The server cancelled the generation"),
        (stream(token, ("error", {"status": 503, "code": "cancelled", "message": "It was given up."})), "given up"),
        (stream(token), "The connection ended before the reply was complete"),
        (stream(token) + "event: token\ndata: {", "The connection ended before the reply was complete"),
        (stream(token) + "event: token\ndata: {\n\n", "The connection ended before the reply was complete"),
        ("", "The connection ended before the reply was complete"),
    ]
    bodies: list[dict[str, Any]] = []
    texts = iter([text for text, _ in replies])

    def answer(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        route.fulfill(body=next(texts), headers={"Content-Type": "text/event-stream"})

    page.route("**/api/generate", answer)
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Generate").click()
    for text, message in replies:
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(message)
        expect(page.get_by_text("Cannot read properties")).to_have_count(0)
        if text:
            expect(page.locator(".generated .tok")).to_have_text([" tide"])
        if text != replies[-1][0]:
            alert.get_by_role("button", name="Try again").click()
    assert [body["temperature"] for body in bodies] == [0] * len(replies)
    page.unroute("**/api/generate")

    page.get_by_label("Temperature").fill("1000")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_label("Temperature")).to_be_focused()
    expect(page.get_by_label("Temperature")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".wrong")).to_have_count(1)
    assert "body." not in page.get_by_role("main").inner_text()
    page.get_by_label("Temperature").fill("")
    page.get_by_label("Tokens").fill("3")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("[role=status]", has_text="tokens/s")).to_be_visible()
    page.get_by_label("Prompt").fill("The quay")
    page.goto(f"{site.url}#/analysis")
    page.get_by_label("Tokens per sample").fill("9")
    page.reload()
    expect(page.get_by_label("Tokens per sample")).to_have_value("9")
