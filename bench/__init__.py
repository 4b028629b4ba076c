"""Benchmarks: ours against a peer or a measured limit in the same run; `make bench` runs them all.

Each module is run as `python -m bench.<name> [--json] [--quick]` and offers `run(quick) -> list[Row]`.
"""
