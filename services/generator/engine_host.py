"""Keeps one engine child alive and hands it requests by id.

A separate thread starts the child (the kernel ends the child together with that thread), reads its messages, and starts
a new child when it ends. Requests that the ended child had not started go to the new child; requests in progress get an
error, so that no client waits for them. `hand_over` returns when the child has a free slot, so that further requests
stay queued in Redis. Leaves out: torch, and the requests themselves (`services.generator.engine`).
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
    "generator_slots",
    "presence_seconds",
)
"""Settings that the engine receives as environment variables, because it does not read `.env`, which holds secrets."""
ENGINE_ENVIRONMENT = {
    # Huge pages also for the allocations of torch (`common.generation.cpu.huge_pages`); no effect before glibc 2.35.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # Threads spin for about 30 µs before they sleep, because waking one takes longer than most of the 150 operations of
    # a token (5.0 -> 3.6 ms per token for one sequence). Spinning longer would take cores from other processes.
    "GOMP_SPINCOUNT": "10000",
    # Each combination of prompt length and batch size is a separate kernel; prompts alone use up the default of 1,024.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}
"""Further variables of the engine's environment. Variables that are set for the generator take precedence."""
FIRST_RESTART_SECONDS = 1.0
"""Delay before the next start after a child that never became ready. A child that was ready is replaced at once."""
LAST_RESTART_SECONDS = 10.0
"""Longest delay before a start, reached after repeated failures."""
FINISH_SECONDS = 3.0
"""Seconds for which `close` waits for requests in progress."""
EXIT_SECONDS = 3.0
"""Seconds from closing the channel to SIGKILL, for a child that does not exit."""


class EngineHost:
    """Runs the engine child of a generator process. A process has one host; tests replace `command`."""

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
        """Number of requests that were handed over and are not finished."""
        return len(self._handed_over)

    def hand_over(self, request_id: str, sequences: int = 1) -> bool:
        """Send a request for `sequences` sequences to the child, or to the next child if none runs.

        Return False when the host is closing. Otherwise return True once the child has a free slot: until then, the
        next request stays in the queue, where another generator may take it.
        """
        with self._changed:
            if self._closing:
                return False
            self._handed_over[request_id] = sequences
            self._send(request_id)
            self._changed.wait_for(lambda: self._shutting_down or sum(self._handed_over.values()) < self._slots)
        return True

    def begin_shutdown(self) -> None:
        """Make blocked calls of `hand_over` return, because the process is about to end."""
        with self._changed:
            self._shutting_down = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait up to `FINISH_SECONDS` for the requests, end the child, and answer unfinished requests with an error."""
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
        """After the end of a child, keep the requests that it had not started; answer the others with an error."""
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
        """Send a request to the child; if none runs, the next child gets it. The caller holds the lock."""
        if self._channel is not None:
            try:
                self._channel.send("generate", request_id)
            except OSError:
                log.info("the engine child is ending; the next one gets the request", request_id=request_id)


def _variables(settings: Settings) -> dict[str, str]:
    """Return the settings of the engine as environment variables, without those that are None."""
    values = {name: getattr(settings, name) for name in ENGINE_SETTINGS}
    texts = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {f"TIDAL_{name.upper()}": text for name, text in texts.items()}
