"""Columns of text out of parquet files, decoded by a child process that may take so much memory and no more.

A few hundred bytes of parquet may stand for gigabytes: a dictionary entry that a run repeats, a page that unpacks to a
thousand times its size, lengths that are deltas of nothing. pyarrow allocates before anybody can count, so the kernel
counts (docs/decisions/0067). Imports nothing but the standard library, so that the child starts fast. Leaves out what
the texts mean and how an error is worded (`common.datasets.reading`).
"""
