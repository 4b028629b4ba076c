"""What a chart in the browser shows."""

from __future__ import annotations

import re

from playwright.sync_api import Page


def newest_point(page: Page) -> int:
    """The last step of the loss chart, as it is told to screen readers."""
    label = page.locator("section[aria-label='Loss'] [role=img]").get_attribute("aria-label") or ""
    found = re.search(r"At step ([\d,]+)", label)
    return int(found[1].replace(",", "")) if found else 0


def wait_for_more(page: Page, than: int) -> None:
    """Until the loss chart has points beyond a step."""
    page.wait_for_function(
        """than => {
          const chart = document.querySelector("section[aria-label='Loss'] [role=img]");
          const found = /At step ([\\d,]+)/.exec(chart?.getAttribute("aria-label") ?? "");
          return found && Number(found[1].replaceAll(",", "")) > than;
        }""",
        arg=than,
    )
