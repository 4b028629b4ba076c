"""Reads the newest step from the label that the loss chart of a page has for screen readers."""

from __future__ import annotations

import re

from playwright.sync_api import Page


def newest_point(page: Page) -> int:
    """Return the last step in the loss chart, or 0 if the chart has no points yet."""
    label = page.locator("section[aria-label='Loss'] [role=img]").get_attribute("aria-label") or ""
    found = re.search(r"At step ([\d,]+)", label)
    return int(found[1].replace(",", "")) if found else 0


def wait_for_more(page: Page, than: int) -> None:
    """Wait until the last step in the loss chart is greater than `than`."""
    page.wait_for_function(
        """than => {
          const chart = document.querySelector("section[aria-label='Loss'] [role=img]");
          const found = /At step ([\\d,]+)/.exec(chart?.getAttribute("aria-label") ?? "");
          return found && Number(found[1].replaceAll(",", "")) > than;
        }""",
        arg=than,
    )
