"""Decoding on a CPU: packed linear layers, huge pages, and code for single sequences that is fast and exact."""
