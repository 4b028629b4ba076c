"""Benchmarks that compare our code with a peer or a measured limit in the same run; `make bench` runs all of them.

Each benchmark runs as `python -m bench.<name> [--json] [--quick]` and defines `run(quick) -> list[Row]`.
"""
