"""Decoding on a GPU: steps are captured as CUDA graphs and launched before the host has read the previous tokens."""
