"""Formats the results of benchmarks as a Markdown table or as JSON.

A row compares a measurement of Tidal (`ours`) with `reference`: another program measured in the same run, or a limit.
`bound` is the largest or smallest allowed value of ours / reference, depending on `bound_is`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """A measured figure (`ours`), the figure it is compared with (`reference`), and the bound of their ratio."""

    name: str
    unit: str
    ours: float
    reference: float
    reference_name: str
    bound: float
    bound_is: Literal["at most", "at least"]

    @property
    def ratio(self) -> float:
        return self.ours / self.reference

    @property
    def ok(self) -> bool:
        return self.ratio <= self.bound if self.bound_is == "at most" else self.ratio >= self.bound

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "reference": self.reference,
            "referenceName": self.reference_name,
            "ratio": self.ratio,
            "bound": self.bound,
            "boundIs": self.bound_is,
            "ok": self.ok,
        }


def from_json(row: dict[str, Any]) -> Row:
    """Return the Row for a result of `Row.as_json`."""
    side: Literal["at most", "at least"] = row["boundIs"]
    return Row(row["name"], row["unit"], row["ours"], row["reference"], row["referenceName"], row["bound"], side)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| figure | ours | reference | ratio | bound | ok |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.ours:.4g} {row.unit} | {row.reference:.4g} {row.unit} ({row.reference_name}) "
        f"| {row.ratio:.3g} | {row.bound_is} {row.bound:g} | {'yes' if row.ok else 'NO'} |"
        for row in rows
    ]
    return "\n".join(lines)


def heading() -> str:
    """Return a Markdown heading with date, processor, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = platform.processor() or platform.machine()
    return (
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {cpu}, Python {platform.python_version()}, "
        f"torch {version('torch')}, commit {commit or 'none'}"
    )


def main(
    run: Callable[..., list[Row]],
    description: str,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """Run the command line of one benchmark. Exit with status 1 if a row violates its bound.

    `run` gets the value of --quick and, as keyword arguments, the values of the options that `add_options` adds.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON list instead of a table")
    parser.add_argument("--quick", action="store_true", help="measure less, to finish in about a minute on 2 cores")
    add_options(parser)
    options = vars(parser.parse_args())
    as_json, quick = options.pop("json"), options.pop("quick")
    rows = run(quick, **options)
    print(json.dumps([row.as_json() for row in rows]) if as_json else table(rows))
    sys.exit(0 if all(row.ok for row in rows) else 1)
