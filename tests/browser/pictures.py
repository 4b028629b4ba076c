"""Themes, widths and frames of pictures."""

from __future__ import annotations

from typing import Literal

WIDTHS = (390, 1280, 2560)


THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
