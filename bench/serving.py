"""64 streaming clients over the whole stack against the engine alone, and what becomes of clients that leave.

Stack: Postgres, Valkey, api, Celery worker and engine child as `tidal up` starts them (on a machine without a GPU the
engine has one thread and nice 10). Peer: the same engine with as many threads and the same nice value in a process of
its own, the same requests, nothing around it. The two alternate, medians are printed, and the CPU seconds of every
process. The first token counts from the moment the client asks; what a prefill takes the engine alone is subtracted.
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
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from bench import cpu_seconds
from bench.generation import default_model
from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from bench.serving_clients import Load, Server, run_load
from bench.serving_leave import Leavers
from common.checkpoint import save_model
from common.config.compute_environment import with_compute_environment
from services.generator.engine_host import ENGINE_ENVIRONMENT

CLIENTS = 64
THREADS = 1
"""Of the engine in a local stack without a GPU."""
CLIENTS_CPU = "clients (this process)"
CHECKPOINT = "20260101-000000-serving/model.safetensors"
WORDS = ["the", "little", "river", "ran", "past", "a", "house", "of", "stone", "where", "nobody", "had", "lived"]


def texts(client: int) -> Iterator[tuple[str, int, int]]:
    """Prompts of about 12 tokens, lengths from 48 to 79 and seeds; another series for each client."""
    number = client
    while True:
        words = [WORDS[(number * 7 + place * (1 + number % 5)) % len(WORDS)] for place in range(12)]
        yield " ".join(words), 48 + (number * 11) % 32, number
        number += CLIENTS


def bodies(client: int) -> Iterator[dict[str, Any]]:
    """The same as requests."""
    for prompt, max_tokens, seed in texts(client):
        yield {"checkpoint": CHECKPOINT, "prompt": prompt, "maxTokens": max_tokens, "seed": seed, "stream": True}


class Alone:
    """The engine in a child process."""

    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.serving_alone", str(model), str(THREADS)],
            cwd=ROOT,
            env=ENGINE_ENVIRONMENT | with_compute_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write(self, *, warm: float, seconds: float) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        series = [
            text for of_all in zip(*(islice(texts(c), 8) for c in range(CLIENTS)), strict=True) for text in of_all
        ]
        asked = {"texts": series, "slots": CLIENTS, "warm": warm, "seconds": seconds}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def alone(model: Path) -> Iterator[Alone]:
    """The child, ended at the end."""
    made = Alone(model)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def run(quick: bool) -> list[Row]:
    """`quick`: fewer and shorter rounds."""
    rounds, warm, seconds = (2, 0.5, 4.0) if quick else (7, 1.0, 8.0)
    with local_stack() as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(default_model(), path)
        first(stack)
        with alone(path) as peer:
            rows = throughput(stack, peer, rounds=rounds, warm=warm, seconds=seconds)
        return rows + leaving(stack)


def throughput(stack: RunningStack, peer: Alone, *, rounds: int, warm: float, seconds: float) -> list[Row]:
    """Tokens per second of both, errors, and the time to the first token."""
    server = Server.at(stack.instance.api_url, stack.instance.token)
    ours: list[float] = []
    theirs: list[float] = []
    loads: list[Load] = []
    found: list[dict[str, Any]] = []
    peer.write(warm=0.5, seconds=0.1)
    spent: dict[str, float] = {}
    for _ in range(rounds):
        found.append(peer.write(warm=warm, seconds=seconds))
        theirs.append(found[-1]["tokens"] / found[-1]["seconds"])
        marks: list[dict[str, float]] = []
        load = run_load(
            server,
            [bodies(client) for client in range(CLIENTS)],
            warm=warm,
            seconds=seconds,
            mark=lambda marks=marks: marks.append({**cpu_seconds.by_process(stack), CLIENTS_CPU: _own_cpu()}),
        )
        loads.append(load)
        ours.append(load.tokens / seconds)
        for name, value in marks[1].items():
            spent[name] = spent.get(name, 0.0) + value - marks[0].get(name, 0.0)
    if not min(theirs) or not any(load.first_token_seconds for load in loads):
        raise RuntimeError("other programs leave the engine no processor; measure when the machine is quiet")
    per_token = 1000 * spent["engine"] / sum(load.tokens for load in loads)
    alone_per_token = 1000 * sum(its["cpu"] for its in found) / sum(its["tokens"] for its in found)
    _say(f"CPU of the engine per token: {per_token:.3f} ms, alone {alone_per_token:.3f} ms")
    _say("ratios of the rounds: " + ", ".join(f"{own / its:.2f}" for own, its in zip(ours, theirs, strict=True)))
    shares = {name: value / rounds / seconds for name, value in sorted(spent.items(), key=lambda item: -item[1])}
    _say("of one core: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share >= 0.001))
    errors = [error for load in loads for error in load.errors]
    for error in errors[:3]:
        _say(f"error: {error}")
    waits = sorted(1000 * wait for load in loads for wait in load.first_token_seconds)
    prefill = 1000 * statistics.median(value for its in found for value in its["prefills"])
    peer_waits = [1000 * wait for its in found for wait in its["waits"]]
    p50, p99 = statistics.median(waits), waits[int(0.99 * (len(waits) - 1))]
    _say(
        f"{len(waits)} texts; first token p50 {p50:.0f} ms, p99 {p99:.0f} ms; a prefill {prefill:.0f} ms; the engine "
        f"alone from a free slot to the first token {statistics.median(peer_waits):.0f} ms"
    )
    texts_ended = sum(load.texts for load in loads)
    return [
        Row(
            "64 streaming clients, whole stack",
            "tokens/s",
            statistics.median(ours),
            statistics.median(theirs),
            "engine alone",
            0.8,
            "at least",
        ),
        Row(
            "64 streaming clients, texts without error",
            "texts",
            texts_ended,
            texts_ended + len(errors),
            "",
            1,
            "at least",
        ),
        Row("first token p50 over prefill", "ms", p50 - prefill, 150, "bound", 1, "at most"),
        Row("first token p99 over prefill", "ms", p99 - prefill, 1000, "bound", 1, "at most"),
    ]


def leaving(stack: RunningStack) -> list[Row]:
    """100 clients that leave in the middle, streaming or not, and 20 that leave while they wait."""
    server = Server.at(stack.instance.api_url, stack.instance.token)
    leavers = Leavers(server, stack.instance.redis_url, {"checkpoint": CHECKPOINT, "prompt": "once"})
    for _ in range(4):
        leavers.round(streaming=15, whole=10)
    delays = sorted(leavers.delays.values())
    queued = leavers.queued(20)
    _say(
        f"slot free after a client left: median {1000 * statistics.median(delays):.0f} ms, longest "
        f"{1000 * delays[-1]:.0f} ms; left while waiting: longest {1000 * max(queued, default=0):.0f} ms"
    )
    within = sum(delay <= 1.0 for delay in delays)
    return [
        Row("slots free within 1 s of the client leaving", "clients", within, 100, "left", 1, "at least"),
        Row(
            "requests gone within 1 s, left while waiting",
            "clients",
            sum(delay <= 1.0 for delay in queued),
            20,
            "left",
            1,
            "at least",
        ),
    ]


def first(stack: RunningStack) -> None:
    """Wait until the generator answers."""
    body = {"checkpoint": CHECKPOINT, "prompt": "once", "maxTokens": 1}
    headers = {"Authorization": f"Bearer {stack.instance.token}"}
    for _ in range(3):
        reply = httpx.post(f"{stack.instance.api_url}/api/generate", json=body, headers=headers, timeout=60)
        if reply.status_code == 200:
            return
    raise RuntimeError(f"the generator does not answer: {reply.text}")


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main(run, __doc__)
