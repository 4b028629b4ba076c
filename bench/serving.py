"""Measure the throughput of the stack with 64 streaming clients, and how soon it frees slots of disconnected clients.

The stack has PostgreSQL, Valkey, api, Celery worker and engine process as `tidal up` starts them (on a machine without
a GPU the engine has one thread and nice value 10). The reference is the same engine in a separate process with the same
number of threads, nice value and requests, but without the other services. Measurements of the two alternate; medians
and the CPU time of every process are printed. The time to the first token starts when the client sends its request; the
median prefill time of the reference is subtracted.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from bench import cpu_seconds
from bench.generation import default_model
from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from bench.serving_clients import LoadResult, Server, run_load
from bench.serving_leave import DisconnectingClients
from common.checkpoint import save_model
from common.config.compute_environment import with_compute_environment
from services.generator.engine_host import ENGINE_ENVIRONMENT

CLIENTS = 64
THREADS = 1
"""Number of threads of the engine in a local stack without a GPU."""
CLIENTS_CPU = "clients (this process)"
CHECKPOINT = "20260101-000000-serving/model.safetensors"
WORDS = ["the", "little", "river", "ran", "past", "a", "house", "of", "stone", "where", "people", "had", "lived"]


def texts(client: int) -> Iterator[tuple[str, int, int]]:
    """Yield (prompt of about 12 tokens, max_tokens from 48 to 79, seed); each client has a different series."""
    number = client
    while True:
        words = [WORDS[(number * 7 + place * (1 + number % 5)) % len(WORDS)] for place in range(12)]
        yield " ".join(words), 48 + (number * 11) % 32, number
        number += CLIENTS


def bodies(client: int) -> Iterator[dict[str, Any]]:
    """Yield the request bodies of a client."""
    for prompt, max_tokens, seed in texts(client):
        yield {"checkpoint": CHECKPOINT, "prompt": prompt, "maxTokens": max_tokens, "seed": seed, "stream": True}


class EngineProcess:
    """The reference: the engine in a child process, without the other services."""

    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.serving_alone", str(model), str(THREADS)],
            cwd=ROOT,
            env=ENGINE_ENVIRONMENT | with_compute_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def generate(self, *, warm: float, seconds: float) -> dict[str, Any]:
        """Generate in all slots for `seconds` and return the reply of `bench.serving_alone`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        series = [
            text for of_all in zip(*(islice(texts(c), 8) for c in range(CLIENTS)), strict=True) for text in of_all
        ]
        request = {"texts": series, "slots": CLIENTS, "warm": warm, "seconds": seconds}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def engine_process(model: Path) -> Iterator[EngineProcess]:
    """Start the engine in a child process and kill the process after the block."""
    engine = EngineProcess(model)
    try:
        yield engine
    finally:
        engine.process.kill()
        engine.process.communicate()


def run(quick: bool) -> list[Row]:
    """Measure throughput and disconnected clients, in fewer and shorter rounds when `quick`."""
    rounds, warm, seconds = (2, 0.5, 4.0) if quick else (7, 1.0, 8.0)
    with local_stack() as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(default_model(), path)
        wait_until_ready(stack)
        with engine_process(path) as peer:
            rows = measure_throughput(stack, peer, rounds=rounds, warm=warm, seconds=seconds)
        return rows + measure_disconnects(stack)


def measure_throughput(
    stack: RunningStack, peer: EngineProcess, *, rounds: int, warm: float, seconds: float
) -> list[Row]:
    """Measure the stack's and the engine's tokens per second, and the stack's errors and time to the first token."""
    server = Server.at(stack.instance.api_url, stack.instance.token)
    ours: list[float] = []
    reference: list[float] = []
    loads: list[LoadResult] = []
    found: list[dict[str, Any]] = []
    peer.generate(warm=0.5, seconds=0.1)
    cpu_by_process: dict[str, float] = {}
    for _ in range(rounds):
        found.append(peer.generate(warm=warm, seconds=seconds))
        reference.append(found[-1]["tokens"] / found[-1]["seconds"])
        marks: list[dict[str, float]] = []
        load = run_load(
            server,
            [bodies(client) for client in range(CLIENTS)],
            warm=warm,
            seconds=seconds,
            mark=partial(_mark, marks, stack),
        )
        loads.append(load)
        ours.append(load.tokens / seconds)
        for name, value in marks[1].items():
            cpu_by_process[name] = cpu_by_process.get(name, 0.0) + value - marks[0].get(name, 0.0)
    if not min(reference) or not any(load.first_token_seconds for load in loads):
        raise RuntimeError(
            "a round ended without tokens because other programs use all cores; run this benchmark on an idle machine"
        )
    per_token = 1000 * cpu_by_process["engine"] / sum(load.tokens for load in loads)
    alone_per_token = 1000 * sum(result["cpu"] for result in found) / sum(result["tokens"] for result in found)
    _print_progress(f"CPU of the engine per token: {per_token:.3f} ms, alone {alone_per_token:.3f} ms")
    _print_progress(
        "stack over engine alone, per round: "
        + ", ".join(f"{own / peers:.2f}" for own, peers in zip(ours, reference, strict=True))
    )
    shares = {
        name: value / rounds / seconds for name, value in sorted(cpu_by_process.items(), key=lambda item: -item[1])
    }
    _print_progress(
        "CPU time as share of one core: "
        + ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share >= 0.001)
    )
    errors = [error for load in loads for error in load.errors]
    for error in errors[:3]:
        _print_progress(f"error: {error}")
    waits = sorted(1000 * wait for load in loads for wait in load.first_token_seconds)
    prefill = 1000 * statistics.median(value for result in found for value in result["prefills"])
    peer_waits = [1000 * wait for result in found for wait in result["waits"]]
    p50, p99 = statistics.median(waits), waits[int(0.99 * (len(waits) - 1))]
    _print_progress(
        f"{len(waits)} completions; time to first token p50 {p50:.0f} ms, p99 {p99:.0f} ms; prefill {prefill:.0f} ms; "
        f"engine alone, from a free slot to the first token {statistics.median(peer_waits):.0f} ms"
    )
    texts_ended = sum(load.texts for load in loads)
    return [
        Row(
            "64 streaming clients, tokens per second of the whole stack",
            "tokens/s",
            statistics.median(ours),
            statistics.median(reference),
            "engine alone",
            0.8,
            "at least",
        ),
        Row(
            "64 streaming clients, completions without error",
            "completions",
            texts_ended,
            texts_ended + len(errors),
            "",
            1,
            "at least",
        ),
        Row("time to first token minus prefill, p50", "ms", p50 - prefill, 150, "bound", 1, "at most"),
        Row("time to first token minus prefill, p99", "ms", p99 - prefill, 1000, "bound", 1, "at most"),
    ]


def measure_disconnects(stack: RunningStack) -> list[Row]:
    """Measure 100 clients that disconnect during generation and 20 that disconnect while their request is queued."""
    server = Server.at(stack.instance.api_url, stack.instance.token)
    clients = DisconnectingClients(server, stack.instance.redis_url, {"checkpoint": CHECKPOINT, "prompt": "once"})
    for _ in range(4):
        clients.disconnect_while_generating(streaming=15, not_streaming=10)
    delays = sorted(clients.delays.values())
    queued = clients.disconnect_while_queued(20)
    _print_progress(
        f"time until a disconnected client's slot is free: median {1000 * statistics.median(delays):.0f} ms, longest "
        f"{1000 * delays[-1]:.0f} ms; time until a queued request is removed: longest "
        f"{1000 * max(queued, default=0):.0f} ms"
    )
    within = sum(delay <= 1.0 for delay in delays)
    return [
        Row("slots free within 1 s after a client disconnected", "clients", within, 100, "disconnected", 1, "at least"),
        Row(
            "queued requests removed within 1 s after a client disconnected",
            "clients",
            sum(delay <= 1.0 for delay in queued),
            20,
            "disconnected",
            1,
            "at least",
        ),
    ]


def wait_until_ready(stack: RunningStack) -> None:
    """Wait until the generator has answered a request."""
    body = {"checkpoint": CHECKPOINT, "prompt": "once", "maxTokens": 1}
    headers = {"Authorization": f"Bearer {stack.instance.token}"}
    for _ in range(3):
        reply = httpx.post(f"{stack.instance.api_url}/api/generate", json=body, headers=headers, timeout=60)
        if reply.status_code == 200:
            return
    raise RuntimeError(f"the generator does not answer with status 200: {reply.text}")


def _mark(marks: list[dict[str, float]], stack: RunningStack) -> None:
    """Append the CPU seconds so far of each process of the stack and of the clients."""
    marks.append({**cpu_seconds.by_process(stack), CLIENTS_CPU: _own_cpu()})


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _print_progress(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main(run, __doc__)
