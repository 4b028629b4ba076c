"""Sampling: from logits to tokens, for single sequences and for a running batch."""
