"""Decoding on a CPU: packed linear layers, huge pages, and the paths that keep one sequence fast and exact."""
