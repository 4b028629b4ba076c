"""Predicts parameters, memory and duration of a pretraining before it starts, without torch.

`model_size` counts parameters and FLOPs; `memory` and `duration` turn a configuration and the `calibration` of a
machine into bytes and seconds; `estimate` combines them with earlier runs. `common.training.calibrate` measures a
calibration. Jobs of other types than pretraining are not predicted.
"""
