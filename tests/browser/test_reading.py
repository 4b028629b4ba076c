"""Pages show correct data: values at the cursor, times, counts, tags, and the complete log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import LONG_NAME, Site
from tests.integration.acceptance.stack import TINY_LM

Visit = Callable[..., Page]
BEYOND = "2100-01-01T00:00:00Z"
MODULE = """async ([module, body]) => {
  const script = [...document.querySelectorAll("link[rel=modulepreload]")].find(one => one.href.endsWith(module));
  return new Function("m", body)(await import(script.href));
}"""
DURATIONS = {
    0: "0 ms",
    0.34: "340 ms",
    2.5: "2.5 s",
    59.6: "1 min",
    61: "1 min 1 s",
    119.6: "2 min",
    3599.9: "1 h",
    5400: "1 h 30 min",
    86_399: "1 d",
    2_634_120: "30 d 12 h",
}


def test_numbers_times_and_counts_are_written_as_people_read_them(visit: Visit) -> None:
    page = visit("#/queue", zone="Asia/Kolkata")

    def run(module: str, body: str) -> object:
        return page.evaluate(MODULE, [module, body])

    assert run("format.js", f"return {json.dumps(list(DURATIONS))}.map(s => m.duration(s))") == list(DURATIONS.values())
    counted = run("format.js", "return [0, 1, 2, 1200, 0.5].map(n => m.count(n, 'step'))")
    assert counted == ["0 steps", "1 step", "2 steps", "1,200 steps", "0.5 steps"]
    moments = run("format.js", f"return [m.moment('{BEYOND}'), m.exactly('{BEYOND}')]")
    assert moments == ["1 Jan 2100, 05:30", "1 Jan 2100, 05:30:00 GMT+5:30"]
    away = "new Date(Date.parse('2030-05-05T12:00:00Z') + s * 1000).toISOString()"
    ago = run("format.js", f"return [-3, 3, -59.7, 300, -7100].map(s => m.ago({away}, Date.UTC(2030, 4, 5, 12)))")
    assert ago == ["just now", "now", "1 min ago", "in 5 min", "2 h ago"]
    found = run("series.js", "return [9, 10, 25, 30, 99].map(step => m.lastAt([10, 20, 30], step))")
    assert found == [-1, 0, 1, 2, 2]


def test_a_waiting_job_shows_local_times_and_only_what_it_takes(site: Site, visit: Visit) -> None:
    job = site.submit(config=TINY_LM, name="Neap tide", notBefore=BEYOND)
    page = visit(site.view(job["experimentId"]), zone="Asia/Kolkata")
    expect(page.locator(".job-controls")).to_contain_text("Not before 1 Jan 2100, 05:30.")
    assert "UTC" not in page.locator("main").inner_text()
    buttons = [text.strip() for text in page.locator(".job-controls button").all_inner_texts()]
    assert buttons[:-1] == ["Stop", "Cancel"]
    assert "GMT+5:30" in (page.locator(".job-controls time").get_attribute("title") or "")
    page.get_by_role("link", name="Queue").click()
    row = page.locator("tr", has_text="Neap tide")
    expect(row).to_contain_text("not before 1 Jan 2100, 05:30")
    site.http.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
    site.http.delete(f"/api/experiments/{job['experimentId']}").raise_for_status()


def archived(site: Site, name: str) -> dict[int, dict[str, float]]:
    """Return {step: metrics} of a seeded experiment."""
    [path] = (site.folder / "experiments" / site.seeded[name] / "metrics").glob("*.jsonl")
    return {point["step"]: point["values"] for point in map(json.loads, path.read_text().splitlines())}


def legend(chart: Locator) -> dict[str, tuple[str, str]]:
    """Return {label: (value, marker)} of the lines in the legend."""
    entries = chart.locator(".legend button").evaluate_all(
        "all => all.map(one => ['span', 'b', 'small'].map(part => one.querySelector(part).textContent))"
    )
    return {label: (value, mark) for label, value, mark in entries}


def written(value: float) -> str:
    """Return a value with four significant digits, as in charts."""
    return f"{float(f'{value:.4g}'):g}"


def test_the_legend_shows_the_value_at_the_cursor_or_an_earlier_one_with_its_step(site: Site, visit: Visit) -> None:
    points = archived(site, "Slow cosine")
    validated = [step for step, values in points.items() if "Losses/Validation" in values]
    page = visit(site.view(site.seeded["Slow cosine"]))
    chart = page.locator("section[aria-label='Loss']")
    page.get_by_label("Smoothing").fill("0")

    def expected(step: int) -> dict[str, tuple[str, str]]:
        last = max(one for one in validated if one <= step)
        return {
            "training": (written(points[step]["Losses/Total"]), ""),
            "validation": (written(points[last]["Losses/Validation"]), "" if last == step else f"at {last:,}"),
        }

    assert validated[-1] == 1376
    expect(chart.locator("[role=img]")).to_have_attribute("aria-label", re.compile(r"validation [\d.]+ at 1,376\."))
    assert legend(chart) == expected(1500)
    chart.locator("[role=img]").focus()
    step = 1501
    keys = ["ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft", *["ArrowRight"] * 27, *["Shift+ArrowLeft"] * 18]
    for key in keys:
        page.keyboard.press(key)
        step += (-1 if "Left" in key else 1) * (75 if "Shift" in key else 1)
        expect(chart.locator("h3")).to_contain_text(f"at {step:,}")
        assert legend(chart) == expected(step), key
    page.mouse.move(5, 5)

    both = f"{site.seeded['Slow cosine']},{site.seeded[LONG_NAME]},{site.seeded['Helmsman']}"
    page.goto(f"{site.url}#/compare?ids={both}")
    chart = page.locator("section[aria-label='Loss: validation']")
    last = written(points[1376]["Losses/Validation"])
    expect(chart.locator(".legend button", has_text="Slow cosine")).to_contain_text(f"Slow cosine{last}at 1,376")
    chart = page.locator("section[aria-label='Modulation']")
    assert chart.locator("h3").inner_text().strip() == "Modulation"
    assert page.locator("section[aria-label='Losses: policy'] h3").inner_text().strip() == "Losses: policy"


def test_every_tag_can_be_chosen_whatever_is_shown_and_datasets_are_elsewhere(site: Site, visit: Visit) -> None:
    body = {"type": "dataset", "data": {"source": "builtin:stories"}, "notBefore": BEYOND, "name": "Sediment"}
    dataset = site.http.post("/api/jobs", json=body).raise_for_status().json()
    page = visit("#/queue")
    expect(page.locator("section[aria-label='Waiting']")).to_contain_text("Sediment")
    page.goto(f"{site.url}#/?tag=real")
    expect(page.get_by_role("link", name="Tide pool")).to_be_visible()
    tags = page.get_by_label("Any tag", exact=True)
    assert {"Any tag", "real", "seeded"} <= set(tags.locator("option").all_inner_texts())
    assert "Dataset" not in page.get_by_label("All types", exact=True).inner_text()
    tags.select_option("seeded")
    expect(page.get_by_role("link", name="Helmsman")).to_be_visible()
    page.get_by_role("button", name="Show tag seeded").first.click()  # The filter is active, so this click removes it.
    expect(page.get_by_role("link", name="Tide pool")).to_be_visible()
    expect(tags).to_have_value("")
    assert page.get_by_text("Sediment").count() == 0
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        links = page.locator("nav .nav-link").evaluate_all(
            """all => all.map(one => {
              const { left, right, top, bottom } = one.getBoundingClientRect();
              return [one.innerText.trim(), left >= 0 && right <= innerWidth && top >= 0 && bottom <= innerHeight
                && one.scrollWidth <= one.clientWidth];
            })"""
        )
        assert [text for text, whole in links if not whole] == [] and len(links) == 7, width
    site.http.post(f"/api/jobs/{dataset['id']}/cancel").raise_for_status()
    site.http.delete(f"/api/experiments/{dataset['experimentId']}").raise_for_status()


@pytest.fixture
def second_attempt(site: Site) -> Iterator[Path]:
    """Write a log file for a second attempt: 500 lines, one of them very long."""
    path = site.folder / "experiments" / site.first / "logs" / "2.log"
    lines = [f"log of the second watch, line {number}" for number in range(1, 501)]
    lines[249] = "the long line " + "0123456789" * 400 + " buoy " + "潮" * 300
    path.write_text("\n".join(lines) + "\n")
    yield path
    path.unlink()


def test_a_log_is_wrapped_searched_and_saved_whole(
    site: Site, visit: Visit, second_attempt: Path, screenshots: Path
) -> None:
    page = visit(site.view(site.first, "logs"), width=390)
    log = page.locator(".log")
    wraps = "box => box.scrollWidth <= box.clientWidth"
    expect(log.locator(".line").first).to_be_visible()
    page.get_by_label("Search in the log").fill("buoy")
    mark = log.locator(".line.here mark")
    expect(mark).to_be_in_viewport()
    assert not log.evaluate(wraps)
    page.get_by_label("Wrap").check()
    expect(mark).to_have_text("buoy")
    assert log.evaluate(wraps)
    page.get_by_label("Next match").click()
    expect(mark).to_be_in_viewport()
    page.screenshot(path=screenshots / "log-wrapped-390.png")
    # Each line must be as high as its wrapped text, and the scroll height must be the sum of all lines.
    log.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    expect(log.locator(".line").last).to_contain_text("line 500")
    expect(log.locator(".line").last).to_be_in_viewport()
    assert log.locator(".line").count() < 200
    other = "one => one.getBoundingClientRect().height !== parseFloat(one.style.minHeight)"
    assert log.evaluate(f"box => [...box.querySelectorAll('.line')].filter({other}).length") == 0
    page.reload()
    expect(page.get_by_label("Wrap")).to_be_checked()
    assert log.evaluate(wraps)
    with page.expect_download() as saved:
        page.get_by_label("Download the complete log").click()
    first = (second_attempt.parent / "1.log").read_text()
    expected = f"==== attempt 1 ====\n{first}==== attempt 2 ====\n{second_attempt.read_text()}"
    assert Path(saved.value.path()).read_text() == expected
    assert re.fullmatch(r"job_\w+\.log", saved.value.suggested_filename)
    page.get_by_label("Wrap").uncheck()
    assert not log.evaluate(wraps)
