"""Renders the results of `tidal demo`: losses, ablation, stories and times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.metrics.names import BITS_PER_BYTE, LOSS, VALIDATION_LOSS
from services.cli.output import duration, table
from services.cli.views.tokens import coloured
from tidal_client import Generation, Metrics
from tidal_client.vocabulary import GatingMode

POLICY_NAMES: dict[str, str] = {
    GatingMode.LEARNED: "learned controller",
    "best_constant": "best constant",
    GatingMode.RANDOM: "random modulation",
    GatingMode.FIXED: "fixed modulation",
}
POLICY_ORDER = (GatingMode.LEARNED, "best_constant", GatingMode.FIXED, GatingMode.RANDOM)


def losses(metrics: Metrics) -> tuple[float | None, float | None]:
    """Return (loss before, loss after) of a training in nats per token; None if a value is unknown.

    The loss before is the validation loss at step 0, else the first training loss. The loss after is the last
    validation loss, else the last training loss.
    """
    validation = metrics.series.get(VALIDATION_LOSS, [])
    training = metrics.series.get(LOSS, [])
    if len(validation) > 1 and validation[0].step == 0:
        before: float | None = validation[0].value
    else:
        before = training[0].value if training else None
    after = validation[-1].value if validation else training[-1].value if training else None
    return before, after


def bits_per_byte(metrics: Metrics) -> float | None:
    """Return the bits per byte of the last validation; None if there are none."""
    found = metrics.series.get(BITS_PER_BYTE, [])
    return found[-1].value if found else None


def loss_line(before: float | None, after: float | None, bits: float | None = None) -> Text:
    """Return a line such as `loss 10.83 before → 4.91 after (validation, perplexity 136, 1.52 bits per byte)`."""
    if before is None or after is None:
        return Text("no loss was recorded", style="yellow")
    per_byte = "" if bits is None else f", {bits:.2f} bits per byte"
    return Text.assemble(
        "loss ",
        (f"{before:.2f}", "yellow"),
        " before → ",
        (f"{after:.2f}", "bold green"),
        " after",
        (f"  (validation, perplexity {math.exp(min(after, 50.0)):,.0f}{per_byte})", "dim"),
    )


def ablation_table(result: Mapping[str, Any]) -> Table:
    """Return a table of the policies and of their paired differences, with 95 % confidence intervals."""
    rows = table("policy", "reward/token>", "95 % interval>", "modulation>")
    for column in rows.columns:
        column.no_wrap = True
    policies = result.get("policies", {})
    for name in sorted(policies, key=lambda key: POLICY_ORDER.index(key) if key in POLICY_ORDER else 99):
        row = policies[name]
        rows.add_row(
            POLICY_NAMES.get(name, name),
            f"{row['total']['mean']:.4f}",
            _interval(row["total"]),
            f"{row['modulation']['mean']:.2f}",
        )
    paired = result.get("paired", {})
    if paired:
        rows.add_section()
    for name, row in paired.items():
        label = name.replace("_minus_", " − ").replace("_", " ")
        rows.add_row(f"{label}, paired", f"{row['total']['mean']:+.4f}", _interval(row["total"]), "")
    return rows


def conclusions(result: Mapping[str, Any]) -> list[str]:
    """Return the conclusion of each comparison as a sentence, and one about the controller's use of the modulation."""
    rows = [*result.get("paired", {}).values(), result.get("behaviour", {})]
    return [str(row["verdict"]) for row in rows if row.get("verdict")]


def story(title: str, prompt: str, reply: Generation) -> Padding:
    """Return a story with its title. Each token has the colour of its modulation."""
    used = [step["modulation"] for step in reply.trajectory if step.get("modulation") is not None]
    note = f"  modulation {min(used):.2f} … {max(used):.2f}" if used else "  no modulation"
    text = Text.assemble((title, "bold"), (note, "dim"), "\n", (prompt, "dim"), coloured(reply))
    return Padding(text, (0, 4, 1, 2))


def times_table(times: Mapping[str, float]) -> Table:
    """Return a table of the wall time of each phase and of their sum."""
    rows = table("phase", "time>")
    for name, seconds in times.items():
        rows.add_row(name, duration(seconds))
    rows.add_section()
    rows.add_row(Text("total", style="bold"), Text(duration(sum(times.values())), style="bold"))
    return rows


def _interval(row: Mapping[str, float]) -> str:
    return f"{row['ci_low']:+.4f} … {row['ci_high']:+.4f}"
