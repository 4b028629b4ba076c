"""The shared package of Tidal: everything that more than one process needs; nothing here imports `services`.

`tests/architecture` checks the order of imports, in which a package imports only packages to its left:
errors, logging → config, metrics, artifacts → model, data → checkpoint → controller → training, generation → rl →
analysis, and config → db → jobs. All of them may import `tidal_client`, which contains vocabulary, errors and reply
types. The packages from `model` on import torch.
"""
