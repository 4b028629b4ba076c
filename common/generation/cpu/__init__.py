"""Decoding on a CPU: packed linear layers, memory in huge pages, and exact, fast code for single sequences."""
