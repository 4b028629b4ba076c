"""What the Celery message between api and engine costs, against an engine that takes requests from Redis directly.

Both write one token with a tiny model, so that the way is nearly all of the time: from the moment the request is in
Redis to the first event in the stream that the api reads. Ours goes through Celery, the generator's worker and the
socket of the engine child; the reference is a second engine child of this run to which a thread hands what it pops off
a Redis list, which is what an engine without Celery would do. The two alternate; medians are printed.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis
from pydantic import SecretStr

from bench.local_stack import RunningStack, local_stack
from bench.report import Row, main
from common.checkpoint import save_model
from common.config import Settings
from common.model import ModelConfig, TransformerLM
from common.redis import keys
from common.redis.celery_settings import HANDOVER_TASK, make_app
from common.redis.client import LONG_COMMAND, connect
from common.redis.generation_request import GenerationRequest
from services.generator.engine_host import EngineHost

CHECKPOINT = "20260101-000000-handover/model.safetensors"
LIST = "bench:handover"
MODEL = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=32, context_length=32)


def run(quick: bool) -> list[Row]:
    """`quick`: fewer requests."""
    requests = 40 if quick else 300
    with local_stack() as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(TransformerLM(MODEL), path)
        return compare(stack, requests)


def compare(stack: RunningStack, requests: int) -> list[Row]:
    """Time both ways in turn, and the CPU time of the generator's Celery worker for a request."""
    url = SecretStr(stack.instance.redis_url)
    client = connect(url, LONG_COMMAND)
    app = make_app("bench", url)
    host = EngineHost(
        Settings(
            _env_file=None, redis_url=url, experiments_dir=Path(stack.instance.experiments_dir), generator_threads=1
        )
    )
    stop = threading.Event()
    popper = threading.Thread(target=lambda: pop(client, host, stop))
    popper.start()
    worker = psutil.Process(stack.instance.processes["generator"].pid)
    through_celery: list[float] = []
    directly: list[float] = []
    worker_cpu = 0.0
    try:
        for number in range(-10, requests):  # the first ones load the model
            before = sum(worker.cpu_times()[:2])
            celery = first_event(
                client,
                f"celery{number}",
                lambda its: app.send_task(HANDOVER_TASK, args=[its], kwargs={"texts": 1}, queue="generate"),
            )
            spent = sum(worker.cpu_times()[:2]) - before
            direct = first_event(client, f"direct{number}", lambda its: client.lpush(LIST, its))
            if number >= 0:
                through_celery.append(celery)
                directly.append(direct)
                worker_cpu += spent
    finally:
        stop.set()
        host.leave()
        popper.join()
        host.close()
        app.close()
        client.close()
    median = statistics.median(through_celery) * 1000
    name = "request in Redis to first event"
    return [
        Row(name, "ms", median, statistics.median(directly) * 1000, "taken by the engine", 10, "at most"),
        Row("CPU of the Celery worker for a request", "ms", worker_cpu / requests * 1000, 10, "bound", 1, "at most"),
    ]


def first_event(client: redis.Redis, request_id: str, hand_over: Callable[[str], object]) -> float:
    """Seconds until the engine has sent something about a new request."""
    request = GenerationRequest(id=request_id, checkpoint=CHECKPOINT, prompt="Once", max_tokens=1)
    client.set(keys.generate_request(request_id), request.model_dump_json(), ex=60)
    started = time.perf_counter()
    hand_over(request_id)
    if not client.xread({keys.generate_stream(request_id): "0-0"}, block=30_000, count=1):
        raise RuntimeError(f"nothing came for {request_id}")
    return time.perf_counter() - started


def pop(client: redis.Redis, host: EngineHost, stop: threading.Event) -> None:
    """Hand over what is on the list."""
    while not stop.is_set():
        found = client.brpop([LIST], timeout=0.5)
        if found:
            host.hand_over(found[1])


if __name__ == "__main__":
    main(run, __doc__)
