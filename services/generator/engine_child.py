"""The process that generates: `python -m services.generator.engine_child`. The generator's Celery worker starts it.

The main thread decodes all sequences together; in each step, it generates one token for every sequence. A second thread
reads the socket to the worker. When the socket closes, the worker has ended, and this process exits at once, even
during a generation. A third thread loads models, and a fourth one writes to Redis. If the accelerator fails, the
process exits with status 1, and the worker starts a new one (`services.generator.engine_host`). TIDAL_GENERATOR_THREADS
sets the number of torch's threads.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading

import torch

from common.artifacts import ArtifactStore
from common.child.lease_guard import die_with_parent
from common.config import Settings
from common.errors import ConfigError
from common.logging import configure, get_logger
from common.redis.client import REPLIES, connect
from services.generator.admission import AdmissionQueue
from services.generator.emitter import Emitter
from services.generator.engine import Engine
from services.generator.engine_protocol import EngineChannel
from services.generator.model_cache import ModelCache

log = get_logger(__name__)


def main() -> int:
    """Serve requests until the worker closes the socket. Return 1 if a setting is invalid or the accelerator fails."""
    die_with_parent()
    configure("engine")
    # Ctrl-C sends SIGINT to every process of the terminal, but the worker decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = engine_settings()
    channel = EngineChannel.from_environment()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(channel, waiting), name="reader", daemon=True).start()
    try:
        device = set_up_device(settings)
    except ConfigError as error:
        log.error("the engine cannot start", error=error.message)
        return 1
    redis, models = connect(settings.redis_url, REPLIES), _models(settings, device)
    emitter = Emitter(
        redis,
        presence_seconds=settings.presence_seconds,
        on_finished=lambda request_id: _report_finished(channel, request_id),
    )
    engine = Engine(
        AdmissionQueue(redis, models),
        emitter,
        slots=settings.generator_slots,
        total_seconds=settings.generate_total_seconds,
    )
    channel.send("ready")
    while True:
        while engine.idle or not waiting.empty():
            engine.submit(waiting.get())
        try:
            engine.step()
        except torch.AcceleratorError:
            log.exception("the accelerator failed")
            emitter.drain()
            return 1


def _report_finished(channel: EngineChannel, request_id: str) -> None:
    # A closed socket is no error here, because the reader thread then ends this process.
    with contextlib.suppress(OSError):
        channel.send("done", request_id)


def engine_settings() -> Settings:
    """Return the settings from the environment variables that the worker has set.

    The file `.env` is not read, because it contains further secrets.
    """
    return Settings(_env_file=None)


def _read_requests(channel: EngineChannel, waiting: queue.SimpleQueue[str]) -> None:
    """Read messages and queue the requests; end the process when the worker closes the socket."""
    status = 0
    try:
        for message in channel.messages():
            if message["type"] == "generate":
                waiting.put(message["request_id"])
    except Exception:
        log.exception("a message of the worker is invalid")
        status = 1
    # sys.exit would end only this thread; the main thread would continue to decode.
    sys.stderr.flush()
    os._exit(status)


def set_up_device(settings: Settings) -> torch.device:
    """Set torch's number of threads and its GPU memory limit, and return the device.

    Raises ConfigError if the device does not exist.
    """
    device = _device(settings.generator_device)
    # The longest time in seconds for which another thread can hold Python's global interpreter lock while the main
    # thread waits for it. The default, 5 ms, would slow decoding down.
    sys.setswitchinterval(0.0005)
    if settings.generator_threads is not None:
        torch.set_num_threads(settings.generator_threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if settings.generator_gpu_mb is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            fraction = min(settings.generator_gpu_mb * 2**20 / total, 1.0)
            torch.cuda.set_per_process_memory_fraction(fraction, device)
    return device


def _models(settings: Settings, device: torch.device) -> ModelCache:
    precision = settings.generator_precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    log.info("engine ready", device=str(device), threads=torch.get_num_threads(), precision=precision)
    return ModelCache(
        ArtifactStore(settings.experiments_dir),
        device=device,
        capacity=settings.generator_models_mb * 2**20,
        precision=precision,
        backend=settings.generator_backend,
    )


def _device(name: str) -> torch.device:
    """Return the device with its index, because torch's memory functions require an index."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"TIDAL_GENERATOR_DEVICE {name!r} is not auto, cpu, cuda or cuda:N") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"TIDAL_GENERATOR_DEVICE is {name}, but torch finds {count} CUDA devices; set it to auto, which uses an "
            "available device"
        )
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


if __name__ == "__main__":
    sys.exit(main())
