"""Benchmarks that compare Tidal with a reference program or a limit. `make bench` runs all of them.

Each benchmark runs as `python -m bench.<name> [--json] [--quick]` and defines `run(quick) -> list[Row]`.
"""
