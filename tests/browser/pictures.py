"""The themes and window widths in which tests take screenshots, and a script that waits for a repaint."""

from __future__ import annotations

from typing import Literal

WIDTHS = (390, 1280, 2560)
"""Widths of the window in CSS pixels."""
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""A promise in JavaScript that resolves after the page has been painted."""
