"""Code that several of Tidal's processes share. No module of this package imports `services`.

`tests/architecture` checks that a package imports only packages that are to its left in one of two chains: errors,
logging → config, metrics, artifacts → model, data → checkpoint → controller → training, generation → rl → analysis; and
config → db → jobs. All packages may import `tidal_client`, which contains vocabulary, errors and reply types. The
packages from `model` to `rl` import torch.
"""
