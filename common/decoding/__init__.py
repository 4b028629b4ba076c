"""Decodes text columns of parquet files in a child process with a memory limit.

A few hundred bytes of parquet can decode to gigabytes, for example if run-length encoding repeats one text many times,
if a page decompresses to a thousand times its size, or if lengths are delta-encoded. pyarrow allocates the memory
before the caller can check a size, so the kernel enforces the memory limit (docs/decisions/0067). The package imports
only the standard library, so that the child starts fast. Splitting the texts into documents and the wording of errors
are in `common.datasets.reading`.
"""
