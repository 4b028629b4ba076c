"""Every page at three widths in both themes: pictures for people, and no page wider than its window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Site

WIDTHS = (390, 1280, 2560)


def addresses(site: Site) -> dict[str, str]:
    helmsman, slow = site.seeded["Helmsman"], site.seeded["Slow cosine"]
    return {
        "experiments": "#/",
        "charts-lm": site.view(slow),
        "charts-rl": site.view(helmsman),
        "results": site.view(helmsman, "results"),
        "checkpoints-of-one": site.view(site.first, "checkpoints"),
        "configuration": site.view(site.first, "config"),
        "log": site.view(site.first, "logs"),
        "history": site.view(site.first, "history"),
        "new-job": "#/new",
        "compare": f"#/compare?ids={slow},{site.seeded['Fast cosine']}",
        "queue": "#/queue",
        "analysis": "#/analysis",
        "checkpoints": "#/checkpoints",
        "playground": "#/playground",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_every_width(
    site: Site, visit: Callable[..., Page], screenshots: Path, theme: Literal["light", "dark"]
) -> None:
    page = visit("#/", theme=theme)
    too_wide = []
    for name, address in addresses(site).items():
        page.goto(address if address.startswith("http") else site.url + address)
        page.locator("main h1").wait_for()
        page.locator(".skeleton").first.wait_for(state="detached")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900 if width < 2000 else 1300})
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                too_wide.append((name, width))
            page.screenshot(path=screenshots / f"{name}-{width}-{theme}.png")
    assert too_wide == []
    assert len(list(screenshots.glob(f"*-{theme}.png"))) >= len(addresses(site)) * len(WIDTHS)
