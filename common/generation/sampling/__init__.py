"""Samples tokens from logits, for single sequences and for a running batch."""
