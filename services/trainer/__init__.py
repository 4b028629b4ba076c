"""The trainer: the process that executes one attempt of a training, evaluation or ablation job.

`python -m services.trainer` is started by a worker's supervisor; `python -m services.trainer --local …` by the command
line, with no service around it.
"""
