"""Renders the result of `tidal analyze headroom`: verdict, gains of the policies, and reward by modulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from services.cli.output import table


def render_headroom(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the verdict, the table of the policies and that of the constants."""
    best, conditions = result["best_constant"], result["conditions"]
    yield Text(f"{result['verdict']}\n{result['advice']}\n")
    rows = table("policy", "reward/token>", "gain over the best constant>", "95 % interval>")
    rows.add_row(f"best constant, m = {best['modulation']:g}", f"{best['reward']['mean']:.4f}", "", "")
    for name, row in result["policies"].items():
        gain = row["gain"]
        interval = f"{gain['ci_low']:+.4f} … {gain['ci_high']:+.4f}"
        rows.add_row(name.replace("_", " "), f"{row['reward']['mean']:.4f}", f"{gain['mean']:+.4f}", interval)
    yield rows
    constants = table("constant m>", "reward/token>")
    for modulation, reward in zip(result["modulations"], result["rewards"], strict=True):
        constants.add_row(f"{modulation:.2f}", f"{reward:.4f}")
    yield constants
    yield Text(
        f"{conditions['contexts']:,} contexts of {conditions['documents']:,} {conditions['source']}", style="dim"
    )
