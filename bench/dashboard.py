"""Measure how fast the dashboard opens in a headless Chromium, and how many bytes it transfers.

One page lists 200 experiments, and the other has charts of a million points. The time runs from the start of the
navigation to the frame that shows all 200 rows or the first chart. The server has answered a request before, and the
browser's cache is empty. Each figure is the median of five. The references are the documented limits: 1 s for the list
and 1.5 s for the chart. The size is the number of compressed bytes that a browser with an empty cache receives for the
dashboard's own files, including HTTP headers. Needs Chromium.
"""

from __future__ import annotations

import statistics
import sys

import httpx
from playwright.sync_api import Browser, sync_playwright

from bench.local_stack import RunningStack, local_stack
from bench.metrics_open import long_experiment
from bench.report import Row, main
from scripts.chromium import WITHOUT, find

EXPERIMENTS = 200
LIST_SECONDS = 1.0
CHART_SECONDS = 1.5
SIZE_KB = 150.0
TIMES = 5
WATCH = """
const wanted = () => {
  const rows = document.querySelectorAll("tbody tr").length;
  const canvas = document.querySelector(".chart-card canvas");
  return rows >= EXPERIMENTS || canvas;
};
const look = () => {
  if (!wanted()) return requestAnimationFrame(look);
  requestAnimationFrame(() => { window.shownAt = performance.now(); });
};
requestAnimationFrame(look);
""".replace("EXPERIMENTS", str(EXPERIMENTS))


def run(quick: bool) -> list[Row]:
    """Measure with charts of a million points (200,000 when `quick`). Return no rows if there is no Chromium."""
    program = find()
    if program is None:
        print(WITHOUT, file=sys.stderr)
        return []
    points = 200_000 if quick else 1_000_000
    with local_stack() as stack, long_experiment(stack, points) as experiment, sync_playwright() as playwright:
        _submit(stack, EXPERIMENTS - 1)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = _open(browser, f"{stack.instance.api_url}/#/")
        chart = _open(browser, f"{stack.instance.api_url}/#/experiments/{experiment}")
        size = _size(browser, stack.instance.api_url)
        browser.close()
    return [
        Row(
            f"time until all rows of {EXPERIMENTS} experiments are shown",
            "s",
            page,
            LIST_SECONDS,
            "limit",
            1.0,
            "at most",
        ),
        Row(f"time until a chart of {points:,} points is drawn", "s", chart, CHART_SECONDS, "limit", 1.0, "at most"),
        Row("transferred size of the dashboard", "kB", size, SIZE_KB, "limit", 1.0, "at most"),
    ]


def _submit(stack: RunningStack, count: int) -> None:
    headers = {"Authorization": f"Bearer {stack.instance.token}"}
    with httpx.Client(base_url=stack.instance.api_url, headers=headers) as client:
        for number in range(count):
            body = {"type": "lm-training", "notBefore": "2100-01-01T00:00:00Z", "name": f"run {number}", "tags": ["x"]}
            client.post("/api/jobs", json=body).raise_for_status()


def _open(browser: Browser, address: str) -> float:
    """Return the median number of seconds to open a page with an empty cache. The first attempt is not counted."""
    found = []
    for _ in range(TIMES + 1):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(address)
        page.wait_for_function("() => window.shownAt", timeout=60_000)
        found.append(float(page.evaluate("window.shownAt")) / 1000)
        context.close()
    print(f"{address}: {', '.join(f'{seconds:.2f}' for seconds in found)} s", file=sys.stderr)
    return statistics.median(found[1:])


def _size(browser: Browser, api_url: str) -> float:
    """Return the kilobytes that the browser receives for the dashboard, not counting replies of /api."""
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    addresses: dict[str, str] = {}
    received: dict[str, float] = {}
    session.on(
        "Network.responseReceived", lambda event: addresses.update({event["requestId"]: event["response"]["url"]})
    )
    session.on(
        "Network.loadingFinished", lambda event: received.update({event["requestId"]: event["encodedDataLength"]})
    )
    session.send("Network.enable")
    page.goto(f"{api_url}/#/")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length > 0", timeout=60_000)
    page.wait_for_load_state("load")
    context.close()
    static = {key: size for key, size in received.items() if not addresses[key].startswith(f"{api_url}/api/")}
    print(f"{len(static)} files, {sum(static.values()) / 1000:.1f} kB", file=sys.stderr)
    return sum(static.values()) / 1000


if __name__ == "__main__":
    main(run, __doc__)
