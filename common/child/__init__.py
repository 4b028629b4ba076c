"""Child processes of workers and generators: their launch, socket, messages, and lease. Does not import torch."""
