"""Starts the engine process, restarts it when it ends, and hands requests over to it by id.

A separate thread starts the engine process (the child), reads its messages, and starts a new child when the child
ends. If this thread ends, the kernel ends the child. A new child gets the requests that the old one had not started;
requests in progress end with an error, so that no client waits for them. `hand_over` returns only when the
child has a free slot, so that further requests stay in the queue in Redis. Decoding is in `services.generator.engine`.
"""

from __future__ import annotations

import os
import sys
import threading

import redis
from pydantic import SecretStr

from common.backoff import Backoff
from common.child.launch import LaunchedChild, launch
from common.config import Settings
from common.config.child_environment import child_environment
from common.errors import UnavailableError
from common.logging import get_logger
from common.redis import keys
from common.redis.client import FINAL_REPLIES, connect
from services.generator.engine_protocol import ENGINE_MODULE, EngineChannel
from services.generator.reply_stream import end_with_error

log = get_logger(__name__)

ENGINE_SETTINGS = (
    "redis_url",
    "experiments_dir",
    "generate_total_seconds",
    "generator_threads",
    "generator_device",
    "generator_gpu_mb",
    "generator_models_mb",
    "generator_precision",
    "generator_backend",
    "generator_slots",
    "presence_seconds",
)
"""Settings that the child receives as environment variables.

The child does not read the file `.env`, because that file contains further secrets.
"""
ENGINE_ENVIRONMENT = {
    # Use huge pages also for torch's allocations (`common.generation.cpu.huge_pages`). This has no effect before glibc
    # 2.35.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # Let idle OpenMP threads spin for about 30 µs before they sleep, because waking a thread takes longer than most of
    # the 150 operations per token. For one sequence, this reduces the time per token from 5.0 to 3.6 ms. Spinning for
    # longer would take CPU time from other processes.
    "GOMP_SPINCOUNT": "10000",
    # oneDNN compiles a separate kernel for each combination of prompt length and batch size. Prompts of different
    # lengths alone would fill the default cache of 1,024 kernels.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}
"""Additional environment variables for the child.

A variable that is set in the generator's environment takes precedence.
"""
FIRST_RESTART_SECONDS = 1.0
"""Delay in seconds before the first restart of a child that never became ready.

A child that was ready is restarted at once.
"""
LAST_RESTART_SECONDS = 10.0
"""Longest delay in seconds before a restart. Repeated failures double the delay up to this value."""
FINISH_SECONDS = 3.0
"""Longest time in seconds for which `close` waits for requests in progress."""
EXIT_SECONDS = 3.0
"""Time in seconds from the closing of the channel to SIGKILL, for a child that has not exited by then."""


class EngineHost:
    """Runs the engine process of a generator. Each generator process has one host. Tests pass another `command`."""

    def __init__(self, settings: Settings, *, command: tuple[str, ...] | None = None) -> None:
        self._command = command or (sys.executable, "-m", ENGINE_MODULE)
        self._settings = _variables(settings)
        self._slots = settings.generator_slots
        self._redis = connect(settings.redis_url, FINAL_REPLIES)
        self._changed = threading.Condition()
        self._handed_over: dict[str, int] = {}
        self._channel: EngineChannel | None = None
        self._child: LaunchedChild[EngineChannel] | None = None
        self._closing = self._shutting_down = False
        self.ready = threading.Event()
        """Set while the child accepts requests."""
        self.restarts = 0
        self._thread = threading.Thread(target=self._run, name="engine-host", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while no child runs."""
        child = self._child
        return None if child is None else child.pid

    @property
    def waiting(self) -> int:
        """Number of requests that were handed over and have not finished."""
        return len(self._handed_over)

    def hand_over(self, request_id: str, sequences: int = 1) -> bool:
        """Hand a request for `sequences` sequences over to the child; if no child runs, the next one gets the request.

        Return False if the host is closing. Otherwise block until the child has a free slot, and return True. While
        this call blocks, the next request stays in the queue in Redis, where another generator may take it.
        """
        with self._changed:
            if self._closing:
                return False
            self._handed_over[request_id] = sequences
            self._send(request_id)
            self._changed.wait_for(lambda: self._shutting_down or sum(self._handed_over.values()) < self._slots)
        return True

    def begin_shutdown(self) -> None:
        """Make blocked calls of `hand_over` return. Call this when the process is about to end."""
        with self._changed:
            self._shutting_down = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait up to `FINISH_SECONDS` for requests in progress, then end the child.

        Requests that are still unfinished end with an error.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._handed_over, FINISH_SECONDS)
            self._closing = self._shutting_down = True
            self._changed.notify_all()
            channel, child = self._channel, self._child
        if channel is not None:
            channel.close()
        if child is not None:
            child.wait(EXIT_SECONDS)
        self._thread.join()
        self._redis.close()

    def _run(self) -> None:
        backoff = Backoff(FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS)
        delay = 0.0
        while not self._closing:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, delay):
                    break
            try:
                self._run_child()
            except Exception:
                log.exception("the connection to the engine child failed")
            if self.ready.is_set():
                backoff.reset()
                delay = 0.0
            else:
                delay = backoff.next()
            self.ready.clear()
            self._resolve_unfinished()

    def _run_child(self) -> None:
        """Start a child and read its messages until it ends."""
        environ = ENGINE_ENVIRONMENT | child_environment(os.environ, hub=False) | self._settings
        child = launch(EngineChannel, self._command, environ)
        channel = child.channel
        with self._changed:
            self._child = child
            self._channel = channel
            if self._closing:
                channel.close()
            for request_id in self._handed_over:
                self._send(request_id)
        try:
            for message in channel.messages():
                with self._changed:
                    if message["type"] == "ready":
                        self.ready.set()
                    elif message["type"] == "done":
                        self._handed_over.pop(message["request_id"], None)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._channel = None
            channel.close()
            status = child.wait(EXIT_SECONDS)
            child.close()
            with self._changed:
                self._child = None
        if not self._closing:
            self.restarts += 1
            log.warning("the engine child ended; a new one starts", status=status, waiting=len(self._handed_over))

    def _resolve_unfinished(self) -> None:
        """Handle the end of a child: keep the requests that it had not started, and end all others with an error."""
        with self._changed:
            unfinished = list(self._handed_over)
        for request_id in unfinished:
            try:
                if not self._closing and self._redis.exists(keys.generate_request(request_id)):
                    continue
                if self._closing:
                    self._redis.delete(keys.generate_request(request_id))
                error = UnavailableError("the generator was restarted; try again", code="generator_restarted")
                end_with_error(self._redis, request_id, error)
            except redis.RedisError as error:
                log.warning("a request could not be answered", request_id=request_id, error=str(error))
            with self._changed:
                self._handed_over.pop(request_id, None)
                self._changed.notify_all()

    def _send(self, request_id: str) -> None:
        """Send a request to the child; if no child runs, the next one gets the request.

        The caller must hold the lock.
        """
        if self._channel is not None:
            try:
                self._channel.send("generate", request_id)
            except OSError:
                log.info("the engine child is ending; the next one gets the request", request_id=request_id)


def _variables(settings: Settings) -> dict[str, str]:
    """Return the engine's settings as environment variables. Settings whose value is None are not set."""
    values = {name: getattr(settings, name) for name in ENGINE_SETTINGS}
    texts = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {f"TIDAL_{name.upper()}": text for name, text in texts.items()}
