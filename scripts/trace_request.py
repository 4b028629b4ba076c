"""List the files of this project that one real request passes through: `.venv/bin/python -m scripts.trace_request`.

The script starts a local stack in which every process counts the calls of this project's functions
(`scripts/tracing/sitecustomize.py`). It leaves the stack idle for a while, then sends one request of each kind, and
prints the files in the order in which the request reached them:

* `submit`: from `POST /api/jobs` to the first step of the trainer;
* `metric`: from a metric of a running trainer to the browser's stream;
* `generate`: from a prompt at `POST /api/generate` to the tokens at the client.

WAYS lists the relays: functions that pass a request to another process or thread, or finish the request. A file is on
the way of a request if one of its functions was on the call stack when a relay was called. `--all` also lists files
whose functions were called for the request, but had returned before a relay was called, such as checks and queries. A
call during the request counts as a call for the request if the function is never or seldom called while the stack is
idle (for `metric`: while the trainer reports nothing). Calls during an import and calls of other libraries are not
counted. The script takes about three minutes. `--read FOLDER` evaluates an earlier run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.local_stack import ROOT, RunningStack, local_stack
from common.metrics.names import STEPS_PER_SECOND
from tidal_client import Client
from tidal_client.vocabulary import TERMINAL

HOOK = ROOT / "scripts" / "tracing" / "sitecustomize.py"
IDLE_SECONDS = 35.0
"""How long the calls of the idle stack are counted. This is longer than the periods of heartbeats and of
maintenance passes."""
SETTLE_SECONDS = 3.0
"""Pause after a request, in which processes finish their work for that request. Calls in this time are not counted for
any request."""
SELDOM = 3.0
"""A ratio. If an idle stack calls a function as well, the function is listed only if it is called during the request
more than SELDOM times as often as in an equally long time of the idle stack."""
FIRST_STEP = "common/training/pretrain.py:_take_step"
BETWEEN_SECONDS = 4.0
"""Approximate time between two metrics of the job that `metric` follows. The calls between them count as those of an
idle stack."""
BOUNDS = {"submit": 24, "metric": 20, "generate": 28}
WAYS = {
    "submit": (
        "services/api/json_body.py:UniqueKeysRoute.get_route_handler.<locals>.handler",
        "common/jobs/outbox.py:add_notifications",
        "common/redis/publisher.py:RedisPublisher.notify_worker",
        "common/jobs/claiming.py:claim_job",
        "services/worker/child_process.py:ChildProcess.start",
        FIRST_STEP,
    ),
    "metric": (
        "common/metrics/writer.py:MetricsWriter.add",
        "common/metrics/segments.py:Segments.append",
        "common/redis/shipper.py:StreamShipper._send",
        "services/api/streaming/entries.py:entry_of",
        "services/api/streaming/topic.py:Topic.entries_after",
        "services/api/middleware.py:_Reply.send",
    ),
    "generate": (
        "services/api/operations/generate.py:_notify_engine",
        "services/api/operations/generate.py:_enqueue",
        "services/generator/engine_protocol.py:EngineChannel.send",
        "services/generator/admission.py:AdmissionQueue.take",
        "common/generation/sampling/batch.py:sample_batch",
        "services/generator/wire.py:wire_token",
        "services/generator/emitter.py:Emitter._send",
        "services/api/generations.py:Generations._deliver",
        "services/api/generation_replies.py:encode_event",
        "services/api/middleware.py:_Reply.send",
    ),
}
"""Maps each kind of request to its relays: functions that pass the request to another process or thread, or finish the
request."""
PROCESSES = {"common/redis/shipper.py:StreamShipper._send": "services.trainer"}
"""Maps a relay to a text; only calls in processes whose command contains this text count as calls of the relay.
Calls of `_send` in a worker are thus left out, because they send log lines, not metrics."""
TINY: dict[str, Any] = {
    "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "context_length": 16},
    "data": {"source": "builtin:stories", "max_documents": 200},
    "training": {"effective_batch_size": 2, "micro_batch_size": 2, "max_steps": 30, "epochs": 1000, "threads": 1},
    "evaluation": {"max_batches": 2, "sample_tokens": 4},
    "checkpoint": {"every_steps": 100_000},
}


@dataclass(frozen=True)
class Window:
    """An interval, in seconds of the monotonic clock, which all processes share."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Return the length of the interval."""
        return self.end - self.begin


@dataclass
class Passed:
    """The calls of the functions in one file during a request."""

    first: float
    """Time of the first call, in seconds after the start of the request."""
    calls: int
    functions: set[str]


Buckets = dict[str, list[float]]
"""Maps a time bucket to [number of calls, time of the first call]."""
Trace = dict[str, Any]
"""The counts of one process. `calls` maps each function to its buckets. `stacks` maps each relay to the functions on
its call stack, and each of these functions to its buckets."""


def main() -> int:
    """Trace all kinds of requests and print their files.

    Return 1 if a request passes through more files than BOUNDS allows, otherwise 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--all", action="store_true", help="also list files that the request only calls, such as checks and queries"
    )
    parser.add_argument("--read", type=Path, metavar="FOLDER", help="evaluate the earlier run that is in this folder")
    chosen = parser.parse_args()
    folder = chosen.read or record()
    marks = json.loads((folder / "marks").read_text())
    traces: list[Trace] = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    longer = False
    for way, bound in BOUNDS.items():
        request, idle = Window(*marks[way]), Window(*marks["training" if way == "metric" else "idle"])
        if way == "submit":
            request = Window(request.begin, first_call(traces, FIRST_STEP, request.begin) + 0.001)
        carried, called = on_the_way(traces, way, request), worked(traces, request, idle)
        beside = {file: file_calls for file, file_calls in called.items() if file not in carried}
        longer |= len(carried) > bound
        print(f"\n{way}: {len(carried)} files on the way (bound {bound}); {len(beside)} more files were called by them")
        show(carried)
        if chosen.all:
            print("  files called by those above:")
            show(beside)
    print(f"\nevaluate this run again with --read {folder}")
    return int(longer)


def show(files: dict[str, Passed]) -> None:
    """Print one line for each file, ordered by the first call."""
    for file, file_calls in sorted(files.items(), key=lambda item: item[1].first):
        functions = ", ".join(sorted(file_calls.functions))
        print(f"  {1000 * file_calls.first:9.1f} ms {file_calls.calls:6}  {file:52} {functions[:100]}")


def on_the_way(traces: list[Trace], way: str, request: Window) -> dict[str, Passed]:
    """Return the files that were on the call stack of a relay. Raises ValueError if a relay was not called."""
    found: dict[str, Passed] = {}
    for relay in WAYS[way]:
        reached = False
        for trace in traces:
            if PROCESSES.get(relay, "") not in trace["command"]:
                continue
            for name, buckets in trace["stacks"].get(relay, {}).items():
                count, first = counted(buckets, request)
                if not count or (name.endswith((":main", ":<module>")) and not called(trace, name, request)):
                    continue  # skip a `main` that has been running since before the request
                add(found, name, count, first - request.begin)
                reached = True
        if not reached:
            raise ValueError(f"{way}: {relay} was not called; correct its name in WAYS")
    return found


def worked(traces: list[Trace], request: Window, idle: Window) -> dict[str, Passed]:
    """Return the files with functions that were called during `request`, but seldom or never during `idle`."""
    found: dict[str, Passed] = {}
    for trace in traces:
        for name, buckets in trace["calls"].items():
            count, first = counted(buckets, request)
            usual, _ = counted(buckets, idle)
            expected = usual * request.seconds / idle.seconds
            if count and not (usual and count < SELDOM * expected + 1):
                add(found, name, count, first - request.begin)
    return found


def add(found: dict[str, Passed], name: str, count: int, first: float) -> None:
    """Add the calls of one function to the entry of its file."""
    file, _, function = name.partition(":")
    file_calls = found.setdefault(file, Passed(first, 0, set()))
    file_calls.first = min(file_calls.first, first)
    file_calls.calls += count
    file_calls.functions.add(function.replace(".<locals>", ""))


def called(trace: Trace, name: str, window: Window) -> bool:
    """Return whether the process called a function during `window`."""
    return counted(trace["calls"].get(name, {}), window)[0] > 0


def counted(buckets: Buckets, window: Window) -> tuple[int, float]:
    """Return the number of calls during `window` and the time of the first one."""
    inside = [(count, first) for count, first in buckets.values() if window.begin <= first <= window.end]
    return int(sum(count for count, _ in inside)), min((first for _, first in inside), default=0.0)


def first_call(traces: list[Trace], name: str, after: float) -> float:
    """Return the time of the first call of a function, in any process, after the time `after`."""
    calls: list[Buckets] = [trace["calls"].get(name, {}) for trace in traces]
    return min(first for buckets in calls for _, first in buckets.values() if first >= after)


def record() -> Path:
    """Run a stack, send the requests, and return the folder with the counts and the intervals of the requests."""
    folder = Path(tempfile.mkdtemp(prefix="tidal-trace-"))
    shutil.copy(HOOK, folder)
    (folder / "root").write_text(str(ROOT))
    (folder / "relays").write_text("\n".join(relay for way in WAYS.values() for relay in way))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    with local_stack() as stack:
        marks = send(stack)
    (folder / "marks").write_text(json.dumps(marks))
    return folder


def send(stack: RunningStack) -> dict[str, list[float]]:
    """Send all requests, one after another, and return the interval in which each was processed."""
    instance, clock = stack.instance, time.monotonic
    headers = {"Authorization": f"Bearer {instance.token}"}
    marks: dict[str, list[float]] = {}
    with httpx.Client(base_url=instance.api_url, headers=headers, timeout=120, trust_env=False) as http:
        # Send each request once before counting, because a process does some work only for its first request.
        trained = submit(http)
        follow_to_the_end(instance.api_url, instance.token, trained["id"])
        model = f"{trained['experimentId']}/final"
        generate(http, model)
        begun = clock() + SETTLE_SECONDS
        time.sleep(SETTLE_SECONDS + IDLE_SECONDS)
        marks["idle"] = [begun, clock()]
        begun = clock()
        generate(http, model)
        marks["generate"] = [begun, clock()]
        time.sleep(SETTLE_SECONDS)
        last = http.get(f"/api/experiments/{trained['experimentId']}/metrics").raise_for_status().json()["last"]
        every = max(1, round(BETWEEN_SECONDS * last["values"][STEPS_PER_SECOND]))
        begun = clock()
        job = submit(http, max_steps=1_000_000, log_every_steps=every)
        times = metric_times(http, job["experimentId"])
        marks["submit"] = [begun, times[0]]
        marks["training"] = [times[-2] + 0.2, times[-1] - 0.6]
        marks["metric"] = [times[-1] - 0.6, times[-1] + 0.1]
        http.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
    return marks


def follow_to_the_end(url: str, token: str, job_id: str) -> None:
    """Read the events of a job until it has ended."""
    with Client(url, token) as client:
        for event in client.follow_job(job_id):
            job = event.data["job"] if event.name == "snapshot" else event.data
            if event.name in ("snapshot", "job-update") and job["status"] in TERMINAL:
                return


def submit(http: httpx.Client, **training: Any) -> dict[str, Any]:
    """Submit a job that trains a tiny model, and return it."""
    config = {**TINY, "training": {**TINY["training"], **training}}
    reply = http.post("/api/jobs", json={"type": "lm-training", "config": config})
    return dict(reply.raise_for_status().json())


def generate(http: httpx.Client, model: str) -> None:
    """Generate eight tokens and read the stream to its end."""
    body = {"checkpoint": model, "prompt": "Once upon a time", "maxTokens": 8, "stream": True}
    with http.stream("POST", "/api/generate", json=body) as reply:
        reply.raise_for_status()
        reply.read()


def metric_times(http: httpx.Client, experiment: str) -> list[float]:
    """Wait until two successive `metrics` events arrive more than two seconds apart; return the arrival times of all
    events."""
    times: list[float] = []
    with http.stream("GET", f"/api/stream?topic=experiments/{experiment}/brief") as reply:
        for line in reply.iter_lines():
            if line == "event: metrics":
                times.append(time.monotonic())
                if len(times) > 2 and times[-1] - times[-2] > 2:
                    break
    return times


if __name__ == "__main__":
    raise SystemExit(main())
