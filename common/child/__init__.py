"""Child processes of workers and generators: launch, socket, messages and view of the lease. Does not import torch."""
