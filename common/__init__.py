"""The shared package of Tidal: everything that more than one process needs; nothing here imports `services`.

Import order (lower never imports higher), checked by `tests/architecture`:
errors, logging → config, metrics, artifacts → model, data → checkpoint → controller → training, generation → rl →
analysis, and config → db → jobs. All of them may import `tidal_client`, which
holds vocabulary, errors and reply types. The packages from `model` on import torch.
"""
