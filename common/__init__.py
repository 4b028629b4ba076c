"""The shared package of Tidal: everything that more than one process needs; nothing here imports `services`.

Import order (lower never imports higher), checked by `tests/architecture`:
errors, logging → config, metrics, artifacts → model, data → checkpoint → controller → training, generation → rl →
analysis, and config → db → jobs. Below all of it is `tidal_client`: its words, errors and reply types. Torch is
imported from `model` on.
"""
