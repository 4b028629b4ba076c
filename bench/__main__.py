"""Run every benchmark and append the results to docs/benchmarks.md: `python -m bench [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import bench
from bench.report import Row, heading, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="shorten each benchmark to at most about a minute on 2 cores"
    )
    quick = parser.parse_args().quick
    rows: list[Row] = []
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name == "__main__":
            continue
        run = getattr(importlib.import_module(f"bench.{module.name}"), "run", None)
        if run is None:  # a module without `run` is a helper of benchmarks
            continue
        print(f"bench.{module.name} …", file=sys.stderr, flush=True)
        rows += run(quick)
    text = f"\n{heading()}\n\n{table(rows)}\n"
    print(text)
    with (Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md").open("a") as file:
        file.write(text)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
