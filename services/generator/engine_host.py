"""Keeps one engine child alive and hands it requests by id.

A thread of its own starts the child (the child dies with that thread), reads what it says and starts a fresh one when
it ends. Requests the dead child had not begun go to the new one; those it was working on are answered with an error, so
that no client waits in vain. `hand_over` returns when the child has room for more: the queue stays in Redis.
Leaves out: torch, the requests themselves (`services.generator.engine`).
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
from common.redis.client import LAST_REPLIES, connect
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
"""What the engine takes of the settings, as variables: it reads no `.env`, which holds secrets."""
ENGINE_ENVIRONMENT = {
    # Huge pages for what torch allocates as well (`common.generation.cpu.huge_pages`); no effect before glibc 2.35.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # Threads wait some 30 µs for the next of a token's 150 operations before they sleep: to be woken takes longer than
    # most of them (one text 5.0 -> 3.6 ms per token), to spin for long takes a busy machine's cores away.
    "GOMP_SPINCOUNT": "10000",
    # Every length of a prompt and number of rows is a kernel of its own; the usual 1,024 are used up by prompts.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}
"""What the engine's process has besides `compute_environment`, where the host's own does not say otherwise."""
FIRST_RESTART_SECONDS = 1.0
"""Before the next start after one that came to nothing; a child that took requests is replaced at once."""
LAST_RESTART_SECONDS = 10.0
FINISH_SECONDS = 3.0
"""What `close` gives requests that are being answered."""
EXIT_SECONDS = 3.0
"""From the end of the channel to SIGKILL of a child that does not leave."""


class EngineHost:
    """One per generator process. `command` is a seam for tests."""

    def __init__(self, settings: Settings, *, command: tuple[str, ...] | None = None) -> None:
        self._command = command or (sys.executable, "-m", ENGINE_MODULE)
        self._settings = _variables(settings)
        self._slots = settings.generator_slots
        self._redis = connect(settings.redis_url, LAST_REPLIES)
        self._changed = threading.Condition()
        self._handed_over: dict[str, int] = {}
        self._channel: EngineChannel | None = None
        self._child: LaunchedChild[EngineChannel] | None = None
        self._closing = self._leaving = False
        self.ready = threading.Event()
        """The child takes requests."""
        self.restarts = 0
        self._thread = threading.Thread(target=self._run, name="engine-host", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        child = self._child
        return None if child is None else child.pid

    @property
    def waiting(self) -> int:
        """Requests the child has."""
        return len(self._handed_over)

    def hand_over(self, request_id: str, texts: int = 1) -> bool:
        """Give a request for so many texts to the child, now or as soon as there is one; False when the host is
        closing.

        Blocks afterwards while the child has as many texts as it writes at once: so the next request stays in the
        queue, where another generator may take it, rather than here.
        """
        with self._changed:
            if self._closing:
                return False
            self._handed_over[request_id] = texts
            self._send(request_id)
            self._changed.wait_for(lambda: self._leaving or sum(self._handed_over.values()) < self._slots)
        return True

    def leave(self) -> None:
        """Block no more: the process is about to end."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let the child finish for three seconds, answer the rest with an error, end the child."""
        with self._changed:
            self._changed.wait_for(lambda: not self._handed_over, FINISH_SECONDS)
            self._closing = self._leaving = True
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
                self._serve()
            except Exception:
                log.exception("the engine child could not be served")
            if self.ready.is_set():
                backoff.reset()
                delay = 0.0
            else:
                delay = backoff.next()
            self.ready.clear()
            self._settle()

    def _serve(self) -> None:
        """Start a child and read what it says until it ends."""
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
            log.warning("engine child ended, starting another", status=status, waiting=len(self._handed_over))

    def _settle(self) -> None:
        """After a child's end: keep what it had not begun, answer what it had."""
        with self._changed:
            left = list(self._handed_over)
        for request_id in left:
            try:
                if not self._closing and self._redis.exists(keys.generate_request(request_id)):
                    continue
                if self._closing:
                    self._redis.delete(keys.generate_request(request_id))
                error = UnavailableError("the generator was restarted; try again", code="generator_restarted")
                end_with_error(self._redis, request_id, error)
            except redis.RedisError as error:
                log.warning("a request lost its way", request_id=request_id, error=str(error))
            with self._changed:
                self._handed_over.pop(request_id, None)
                self._changed.notify_all()

    def _send(self, request_id: str) -> None:
        """To the child if there is one; otherwise the next one gets it. The caller holds the lock."""
        if self._channel is not None:
            try:
                self._channel.send("generate", request_id)
            except OSError:
                log.info("engine child is ending, its successor gets the request", request_id=request_id)


def _variables(settings: Settings) -> dict[str, str]:
    """The settings of the engine as environment variables; those that are None are left out."""
    values = {name: getattr(settings, name) for name in ENGINE_SETTINGS}
    texts = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {f"TIDAL_{name.upper()}": text for name, text in texts.items()}
