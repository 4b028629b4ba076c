"""Decoding on a GPU: steps are captured once as CUDA graphs and launched before the host has read the last tokens."""
