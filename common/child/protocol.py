"""The messages between a worker (supervisor) and its trainer (child): JSON lines over an inherited socketpair.

The supervisor sends `start` (once, first), `stop`, `suspend` and `ping` (the lease was renewed).
The child sends `phase`, `progress`, `running`, `checkpoint`, `kept`, `withdrawn`, `artifact`, `event`, and last
`finished` or `failed`. End of file means that the other process has ended; a child whose supervisor has ended exits at
once. Standard output and error of the child contain only log lines.

This module uses neither torch nor the database nor Redis. Both processes use `Channel`:

    channel = Channel.from_environment()            # in the child
    start = channel.receive() # Start; EOFError if the supervisor has ended
    channel.send(Running())
"""

from __future__ import annotations

import select
import socket
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.child.socket import ChildSocket

EXIT_FINISHED = 0
EXIT_FAILED = 1
"""The exit codes of a child that has sent `finished` or `failed`; any other exit code means a crash."""
MAX_LINE_BYTES = 16 * 1024 * 1024


class ProtocolError(ValueError):
    """Raised for a line that is not a message of this protocol."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ChildJob(_Message):
    """The columns of the job's database row that the trainer needs."""

    job_id: str
    attempt: int
    job_type: str
    experiment_id: str
    payload: dict[str, Any]


class Start(_Message):
    """The first message to the child: its job and its settings."""

    type: Literal["start"] = "start"
    job: ChildJob
    experiments_dir: str
    data_dir: str
    redis_url: str | None = None
    stream_max_length: int = 20_000
    pause_after_seconds: float = 40.0
    """The child suspends itself when the last lease renewal it knows of is more than this number of seconds old."""
    disk_reserve_bytes: int = 0
    """The child waits while the disk of experiments or data has fewer free bytes than this; 0 disables the check."""
    renewed_at: float | None = None
    """`lease_clock()` of the last lease renewal before this message; None means the time at which the child starts."""


class Stop(_Message):
    """A stop request: the child finishes its micro-batch, saves a checkpoint, sends `finished` and exits."""

    type: Literal["stop"] = "stop"
    request: Literal["pause", "complete", "stop", "drain"]


class Suspend(_Message):
    """The lease could not be renewed: the child waits before its next micro-batch until a `ping` arrives."""

    type: Literal["suspend"] = "suspend"


class Ping(_Message):
    """The lease was renewed. `renewed_at` is the value of `lease_clock()` before the renewal was sent."""

    type: Literal["ping"] = "ping"
    renewed_at: float


class DiskWait(_Message):
    """The disk on which the child waits for free space, in the phase `waiting_for_disk`."""

    disk: str
    """Which disk: that of the folder "experiments" or "data"."""
    free_bytes: int
    needed_bytes: int
    reason: str | None = None
    """Error of a write that failed because the disk was full; None if a check found too little space."""


class PhaseEntered(_Message):
    """The child entered a phase: loading data, compile, training, evaluation, checkpoint, ablation, …"""

    type: Literal["phase"] = "phase"
    name: str
    disk: DiskWait | None = None
    """Set only in the phase `waiting_for_disk`, in which the child repeats this message every few seconds."""


class Progress(_Message):
    """Finished and total optimiser steps, or transitions of a controller training.

    Sent after a micro-batch, at most five times a second.
    """

    type: Literal["progress"] = "progress"
    step: int
    total_steps: int
    time_share: float = 0.0
    """Elapsed share of the job's time limit, from 0 to 1; 0 if there is no time limit."""


class Running(_Message):
    """The first training step has begun."""

    type: Literal["running"] = "running"


class CheckpointSaved(_Message):
    """A checkpoint was written completely; `name` is its path relative to the experiment's folder."""

    type: Literal["checkpoint"] = "checkpoint"
    name: str
    step: int
    sha256: str
    size_bytes: int


class CheckpointsKept(_Message):
    """The checkpoints on disk after old ones were removed; `names` are paths relative to the experiment's folder."""

    type: Literal["kept"] = "kept"
    names: list[str]


class CheckpointsWithdrawn(_Message):
    """Training diverged with the weights of the checkpoints `names`; resumed from one of them, it would diverge again.

    `names` are paths relative to the experiment's folder.
    """

    type: Literal["withdrawn"] = "withdrawn"
    names: list[str]
    newest: str | None = None
    """The newest checkpoint from which training can resume; None if there is none."""
    newest_step: int | None = None


class ArtifactSaved(_Message):
    """A final file was written; `name` is its path relative to the experiment's folder."""

    type: Literal["artifact"] = "artifact"
    name: str
    kind: str


class HistoryEvent(_Message):
    """An event to record for the job: resume_inexact, checkpoint_skipped, corpus, …"""

    type: Literal["event"] = "event"
    name: str
    details: dict[str, Any] = Field(default_factory=dict)


class Finished(_Message):
    """The last message of a child that has ended its attempt normally."""

    type: Literal["finished"] = "finished"
    outcome: Literal["completed", "paused", "stopped", "drained"]


class Failed(_Message):
    """The last message of a child whose attempt failed. `kind` determines how often the job is tried again."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    kind: Literal["user", "cuda_oom", "diverged"] = "user"


Message = Annotated[
    Start
    | Stop
    | Suspend
    | Ping
    | PhaseEntered
    | Progress
    | Running
    | CheckpointSaved
    | CheckpointsKept
    | CheckpointsWithdrawn
    | ArtifactSaved
    | HistoryEvent
    | Finished
    | Failed,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def encode_message(message: Message) -> bytes:
    """Return the message as one line of JSON, including the newline."""
    return message.model_dump_json().encode() + b"\n"


def decode_message(line: bytes | str) -> Message:
    """Return the message in `line`. Raises ProtocolError if it is not a message."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ProtocolError(
            f"not a message of the child protocol: {line[:200]!r} ({error.error_count()} errors)"
        ) from None


class Channel(ChildSocket):
    """One end of the socketpair. `send` may be called from any thread, `receive` from one thread only."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor of the socket, for use with selectors."""
        return self._socket.fileno()

    def send(self, message: Message, *, droppable: bool = False) -> bool:
        """Send `message`. If it is `droppable` and the peer reads too slowly, drop it and return False.

        Raises OSError (BrokenPipeError) when the peer has ended.
        """
        line = encode_message(message)
        with self._send_lock:
            if droppable and not self._writable():
                return False
            self._socket.sendall(line)
        return True

    def receive(self, timeout: float | None = None, *, wakeup: int | None = None) -> Message | None:
        """Return the next message, or None after `timeout` seconds or when the descriptor `wakeup` is readable.

        Raises EOFError when the peer closed its end, ProtocolError when a line is not a message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self._buffer.find(b"\n")) < 0:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._readable(wait, wakeup):
                return None
            try:
                chunk = self._socket.recv(65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise EOFError("the other end of the child channel is closed")
            self._buffer += chunk
            if len(self._buffer) > MAX_LINE_BYTES:
                self._buffer.clear()
                raise ProtocolError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return decode_message(line)

    def _writable(self) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        return bool(poller.poll(0))

    def _readable(self, timeout: float | None, wakeup: int | None) -> bool:
        """Wait for the socket or `wakeup`. Return whether the socket is readable, which includes end of file."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if wakeup is not None:
            poller.register(wakeup, select.POLLIN)
        ready = poller.poll(None if timeout is None else timeout * 1000)
        return any(descriptor == self._socket.fileno() for descriptor, _ in ready)
