"""The child processes of workers and generators: launch, messages and suspension. Does not import torch."""
