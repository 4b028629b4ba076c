"""Measure how long a request takes from the api to the engine through Celery, compared with a plain Redis list.

Both paths generate one token with a tiny model, so that the transport takes nearly all of the time. The time begins
when the request is in Redis and ends at the first event in the stream that the api reads. The first path goes through
Celery, the generator's worker and the socket of the engine process. The reference path uses a second engine process,
without Celery: a thread pops request ids from a Redis list and passes them to that engine. Measurements of the two
paths alternate, and medians are printed.
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
    """Measure both paths, with fewer requests when `quick`."""
    requests = 40 if quick else 300
    with local_stack() as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(TransformerLM(MODEL), path)
        return compare(stack, requests)


def compare(stack: RunningStack, requests: int) -> list[Row]:
    """Time both paths alternately, and measure the Celery worker's CPU time per request."""
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
        for number in range(-10, requests):  # requests with negative numbers load the model and are not measured
            before = sum(worker.cpu_times()[:2])
            celery = first_event(
                client,
                f"celery{number}",
                lambda request_id: app.send_task(
                    HANDOVER_TASK, args=[request_id], kwargs={"texts": 1}, queue="generate"
                ),
            )
            spent = sum(worker.cpu_times()[:2]) - before
            direct = first_event(client, f"direct{number}", lambda request_id: client.lpush(LIST, request_id))
            if number >= 0:
                through_celery.append(celery)
                directly.append(direct)
                worker_cpu += spent
    finally:
        stop.set()
        host.begin_shutdown()
        popper.join()
        host.close()
        app.close()
        client.close()
    median = statistics.median(through_celery) * 1000
    name = "time from the request in Redis to its first event"
    return [
        Row(name, "ms", median, statistics.median(directly) * 1000, "Redis list instead of Celery", 10, "at most"),
        Row("CPU time of the Celery worker per request", "ms", worker_cpu / requests * 1000, 10, "bound", 1, "at most"),
    ]


def first_event(client: redis.Redis, request_id: str, hand_over: Callable[[str], object]) -> float:
    """Create a request, pass its id to `hand_over` and return the seconds until its first event is in the stream."""
    request = GenerationRequest(id=request_id, checkpoint=CHECKPOINT, prompt="Once", max_tokens=1)
    client.set(keys.generate_request(request_id), request.model_dump_json(), ex=60)
    started = time.perf_counter()
    hand_over(request_id)
    if not client.xread({keys.generate_stream(request_id): "0-0"}, block=30_000, count=1):
        raise RuntimeError(f"no event arrived for {request_id} within 30 s")
    return time.perf_counter() - started


def pop(client: redis.Redis, host: EngineHost, stop: threading.Event) -> None:
    """Pop request ids from the Redis list and pass them to `host` until `stop` is set."""
    while not stop.is_set():
        found = client.brpop([LIST], timeout=0.5)
        if found:
            host.hand_over(str(found[1]))


if __name__ == "__main__":
    main(run, __doc__)
