"""The themes and window widths in which tests take screenshots, and a script that waits until the page is painted."""

from __future__ import annotations

from typing import Literal

WIDTHS = (390, 1280, 2560)
"""Widths of the browser's window in CSS pixels."""
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""JavaScript: a promise that resolves after the page has been painted."""
