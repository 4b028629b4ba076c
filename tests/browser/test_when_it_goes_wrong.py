"""Pages with missing, invalid, interrupted or very large data, and the use of pages with only a keyboard."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site
from tests.integration.acceptance.stack import TINY_LM, TOKEN

Visit = Callable[..., Page]
LINES = 3000


def begin_a_long_generation(page: Page, prompt: str) -> None:
    """Start a long generation and wait until its first tokens are shown."""
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Tokens").fill("4096")
    page.get_by_role("button", name="Generate").click()
    page.locator(".generated .tok").nth(2).wait_for()
    expect(page.locator("[role=status]", has_text="tokens …")).to_be_visible()


def test_a_text_broken_off_by_a_reload_or_a_lost_api_can_be_written_again(site: Site, visit: Visit) -> None:
    page = visit("#/playground")
    begin_a_long_generation(page, "The harbour at night")
    page.reload()
    expect(page.get_by_label("Prompt")).to_have_value("The harbour at night")
    expect(page.get_by_text("The generated text appears here.")).to_be_visible()

    begin_a_long_generation(page, "The harbour at noon")
    before = page.locator(".generated .tok").count()
    site.kill("api")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator(".generated .tok").count() >= before  # The tokens generated so far are still shown.
    site.start("api", "api")
    site.wait_for("the api to be ready", site._ready)
    page.get_by_label("Tokens").fill("5")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("[role=status]", has_text="tokens/s")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_empty_closed_server_asks_for_a_token_and_shows_how_to_begin(closed_site: Site, visit: Visit) -> None:
    page = visit(closed_site.url, signed_in=True, token="expired-token")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("requires a token")
    expect(page.get_by_role("heading", name="Sign in to see this")).to_be_attached()
    page.get_by_label("Token", exact=True).fill("guess")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This token is wrong")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
    widths = page.locator(".state svg").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert widths == [40, 16], "the icon of the state, and that of its button"
    for address, text in {
        "#/playground": "No model yet",
        "#/analysis": "Nothing to analyse yet",
        "#/checkpoints": "No checkpoints yet",
        "#/compare": "Choose runs to compare",
    }.items():
        page.goto(closed_site.url + address)
        expect(page.get_by_role("heading", name=text)).to_be_visible()


def test_a_wrong_token_can_read_where_reads_are_open(site: Site, visit: Visit) -> None:
    page = visit(site.view(site.first), signed_in=True, token="expired-token")
    expect(page.get_by_role("heading", name="Tide pool")).to_be_visible()
    expect(page.get_by_text("Read-only")).to_be_visible()
    expect(page.get_by_role("button", name="Delete", exact=True)).to_have_count(0)


def test_a_failed_job_shows_why_and_what_to_do(site: Site, visit: Visit) -> None:
    training = {**TINY_LM["training"], "learning_rate": 1e30, "max_steps": 3000}
    job = site.submit(config={**TINY_LM, "training": training}, name="Shipwreck")
    site.wait_status(job["id"], "failed", 240)
    page = visit(site.view(job["experimentId"]))
    message = page.locator(".run-card .message.bad")
    expect(message).to_contain_text("diverged")
    expect(message).to_contain_text("Lower training.learning_rate")
    page.get_by_role("link", name="New job like this").click()
    field = page.get_by_label("learning_rate", exact=True)
    expect(field).to_have_value("1e+30")
    page.get_by_role("link", name="Queue").click()
    expect(page.get_by_role("region", name="Disk")).to_contain_text("free")


def test_a_log_of_thousands_of_lines_is_searched_and_only_a_window_of_it_drawn(site: Site, visit: Visit) -> None:
    [log] = (site.folder / "experiments" / site.first / "logs").glob("*.log")
    with log.open("a") as file:
        file.writelines(f"sounding {number} fathoms\n" for number in range(LINES))
    page = visit(site.view(site.first, "logs"))
    expect(page.get_by_role("status").filter(has_text="lines")).to_contain_text("3,0")
    assert 0 < page.locator(".log .line").count() < 200
    page.get_by_label("Search in the log").fill(f"SOUNDING {LINES - 1} ")
    page.get_by_label("Search in the log").press("Enter")
    expect(page.get_by_text("1 of 3,0")).to_be_visible()
    expect(page.locator(".log .line.here")).to_contain_text(f"sounding {LINES - 1} fathoms")
    page.get_by_label("Only matches").check()
    expect(page.locator(".log .line")).to_have_count(1)


def focused(page: Page) -> str:
    return str(page.evaluate("() => document.activeElement.innerText || document.activeElement.ariaLabel || ''"))


def test_everything_is_reached_with_the_keyboard(site: Site, visit: Visit) -> None:
    page = visit("#/")
    page.get_by_role("link", name="Helmsman").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    seen: list[str] = []
    while "Helmsman" not in seen:
        page.keyboard.press("Tab")
        seen.append(focused(page))
        assert len(seen) < 120
    assert {"New job", "Search by name or id", "Compare Helmsman"} <= set(seen)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Helmsman").wait_for()

    page.get_by_role("tab", name="Charts").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Results")).to_be_focused()
    expect(page.get_by_text("The learned controller beat random").first).to_be_visible()
    page.get_by_role("button", name="Edit").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
