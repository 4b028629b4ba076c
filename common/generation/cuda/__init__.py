"""Decoding on an accelerator: steps that are recorded once and launched ahead of the host."""
