"""Measure the time from a pause or stop request to the registered checkpoint of a default training on a CPU.

A step of `configs/base_config.yaml` has 32 micro-batches, each of which takes about a minute on two cores. Every
request therefore reaches the trainer during a micro-batch. It passes through api, PostgreSQL, worker and trainer, and
the measurement ends with the event `checkpoint` of the job. The reference is the documented limit of 15 s. Two
settings differ from the defaults, without an effect on the duration of a step: the corpus is `builtin:stories`, which
needs no network, and a validation has one batch, so that the first step starts soon. During the first step AdamW has no
moments to write yet; the second figure of `bench.checkpoint_stall` includes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.local_stack import local_stack
from bench.report import Row, main
from common.config import load_lm_config
from tidal_client import Client

LIMIT_SECONDS = 15.0
WAIT_LIMIT_SECONDS = 900.0
"""Longest wait for a condition. The first step takes longest, because tokenisation and a validation precede it."""
INTO_STEP_SECONDS = 5.0


def run(quick: bool) -> list[Row]:
    """Measure three pause requests and three stop requests, or one of each when `quick`."""
    seconds: dict[str, list[float]] = {"pause": [], "stop": []}
    with local_stack() as stack, Client(stack.instance.api_url, stack.instance.token) as client:
        for _ in range(1 if quick else 3):
            for signal, found in seconds.items():
                found.append(_measure(client, signal))
    return [
        Row(
            f"time from a {signal} request to the registered checkpoint, default training on a CPU (slowest)",
            "s",
            max(found),
            LIMIT_SECONDS,
            "limit",
            1.0,
            "at most",
        )
        for signal, found in seconds.items()
    ]


def _measure(client: Client, signal: str) -> float:
    config = load_lm_config(
        None, {"data": {"source": "builtin:stories"}, "training": {"device": "cpu"}, "evaluation": {"max_batches": 1}}
    )
    job_id = client.submit_job("lm-training", config=config.model_dump(mode="json")).id

    def stepping() -> bool:
        job = client.job(job_id)
        if job.status in ("failed", "cancelled"):
            raise RuntimeError(f"the job is {job.status}: {job.error}")
        return job.status == "running" and job.progress.phase in ("training", "compile")

    _until(stepping, f"the first step of {job_id}")
    time.sleep(INTO_STEP_SECONDS)
    started = time.monotonic()
    client.signal_job(job_id, signal)
    _until(lambda: any(event.event == "checkpoint" for event in client.job_events(job_id)), "the checkpoint")
    seconds = time.monotonic() - started
    _until(lambda: client.job(job_id).status in ("paused", "cancelled"), "the end of the attempt")
    if signal == "pause":
        client.signal_job(job_id, "stop")  # end the paused job, so that the next job can start
    return seconds


def _until(check: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_SECONDS
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not happen within {WAIT_LIMIT_SECONDS:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main(run, __doc__)
