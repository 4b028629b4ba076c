"""The trainer: the process that executes one attempt of a job, such as a training, an evaluation or an ablation.

A worker's supervisor starts `python -m services.trainer`. `tidal train` starts `python -m services.trainer --local …`,
which needs no service.
"""
