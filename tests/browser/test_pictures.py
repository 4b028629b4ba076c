"""Screenshots of every page at three widths in both themes, and a check that no page is wider than its window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.conftest import LONG_NAME, Site
from tests.browser.pictures import NEXT_FRAME, THEMES, WIDTHS


def addresses(site: Site) -> dict[str, str]:
    helmsman, slow = site.seeded["Helmsman"], site.seeded["Slow cosine"]
    return {
        "experiments": "#/",
        "nothing-found": "#/?search=nothing-is-called-so",
        "long-name": site.view(site.seeded[LONG_NAME]),
        "charts-lm": site.view(slow),
        "charts-rl": site.view(helmsman),
        "results": site.view(helmsman, "results"),
        "checkpoints-of-one": site.view(site.first, "checkpoints"),
        "configuration": site.view(site.first, "config"),
        "log": site.view(site.first, "logs"),
        "history": site.view(site.first, "history"),
        "new-job": "#/new",
        "compare": f"#/compare?ids={slow},{site.seeded['Fast cosine']},{site.seeded[LONG_NAME]}",
        "queue": "#/queue",
        "analysis": "#/analysis",
        "checkpoints": "#/checkpoints",
        "playground": "#/playground",
    }


def test_every_page_fits_every_width(site: Site, visit: Callable[..., Page], screenshots: Path) -> None:
    page = visit("#/")
    too_wide, pictures = [], []
    for name, address in addresses(site).items():
        page.goto(address if address.startswith("http") else site.url + address)
        page.locator("main h1").wait_for()
        page.locator(".skeleton").first.wait_for(state="detached")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate(f"{NEXT_FRAME}.then(() => document.documentElement.scrollWidth > innerWidth)"):
                too_wide.append((name, width))
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.evaluate(NEXT_FRAME)
                pictures.append(screenshots / f"{name}-{width}-{theme}.png")
                page.screenshot(path=pictures[-1])
    assert too_wide == []
    assert all(picture.stat().st_size > 5000 for picture in pictures)
