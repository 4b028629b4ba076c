"""Opens the corpus of a job, and reports during long phases that the training is alive.

Downloading or tokenising a large corpus, or waiting for another process that does so, can take hours. During these
hours, a request to stop or drain must be obeyed within a second, even if a library does not return, and the supervisor
must not kill a training that is healthy but silent. So a second thread does the work while the training's thread checks
for stop requests. A pause is obeyed only if there is a checkpoint to resume from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from common.config.data import DataConfig
from common.data import Corpus, Vocabulary, open_corpus
from common.errors import DiskFullError
from common.training.disk_wait import StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.hooks import StopRequest, TrainingHooks

T = TypeVar("T")

REPORT_SECONDS = 5.0
"""Seconds between two reports of a long phase."""
POLL_SECONDS = 0.1
"""Seconds between two checks for a stop request."""
CLEANUP_SECONDS = 1.0
"""Seconds that the loading thread has to remove its unfinished files after a stop request."""
FETCH_SECONDS = 6 * 3600.0
"""Seconds for which a download, or the computation of merges, counts as alive although its library reports no
progress."""
VOCABULARY_PHASE = "training vocabulary"


class StoppedWhileLoading(Exception):
    """Raised when a stop request arrives before there is any state to save."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class LongPhase:
    """Reports a long phase. Calls of `heartbeat` during the work repeat the report every few seconds."""

    def __init__(self, hooks: TrainingHooks, name: str) -> None:
        self._hooks, self._name, self._detail = hooks, name, ""
        self._report()

    def enter(self, name: str) -> None:
        """Go on to another phase, and report it."""
        if name != self._name:
            self._name, self._detail = name, ""
            self._report()

    def heartbeat(self, detail: str = "") -> None:
        """Wait while the training is suspended, then report the phase again if the last report is old enough.

        `detail` is shown after the name of the phase.
        """
        self._detail = detail
        self.beat()

    def beat(self) -> None:
        """Do the same without a new detail."""
        self._hooks.wait_while_suspended()
        if time.monotonic() - self._reported_at >= REPORT_SECONDS:
            self._report()

    def _report(self) -> None:
        self._hooks.phase(f"{self._name} ({self._detail})" if self._detail else self._name)
        self._reported_at = time.monotonic()


def obeyed_while_loading(*, may_pause: bool) -> set[StopRequest]:
    """Return the requests that end a training before its first step; a pause only if there is a checkpoint."""
    return {StopRequest.STOP, StopRequest.DRAIN} | ({StopRequest.PAUSE} if may_pause else set())


def load_corpus(
    config: DataConfig,
    data_dir: Path,
    hooks: TrainingHooks,
    *,
    vocabulary: Vocabulary | None = None,
    may_pause: bool = False,
    phase: str = "loading data",
    progress: Callable[[int, int | None], None] | None = None,
) -> Corpus:
    """Open the corpus in a separate phase, then report the event "corpus".

    `vocabulary` is that of an existing model. With None, the corpus has the vocabulary that `config.tokenizer` names;
    if it has to be trained, this is the phase "training vocabulary", in which requests are obeyed as well.

    Raises StoppedWhileLoading on a request to stop or drain. `may_pause` means that there is a checkpoint, so that a
    pause is obeyed as well. `progress` is called in the caller's thread with the number of tokenised documents and, if
    known, of all documents.
    """
    obeyed = obeyed_while_loading(may_pause=may_pause)

    def load() -> Corpus:
        open_once = partial(open_corpus, config, data_dir=data_dir, progress=work.progress, vocabulary=vocabulary)
        try:
            return open_once()
        except DiskFullError:
            # The unfinished token cache has been removed. It is built again when there is space.
            return write_when_disk_has_space(hooks, open_once, obeyed=obeyed, data=True)

    def wait_for_space() -> None:
        wait_for_disk(hooks, obeyed=obeyed, data=True)

    work = _LoadingThread(load, LongPhase(hooks, phase), phase, wait_for_space)
    work.start()
    while True:
        request = hooks.requested_stop()
        if request in obeyed:
            work.abandoned.set()
            work.done.wait(CLEANUP_SECONDS)
            raise StoppedWhileLoading(request)
        if work.done.wait(POLL_SECONDS):
            break
        work.heartbeat_while_silent()
        if progress is not None and work.tokenised is not None:
            progress(*work.tokenised)
    try:
        corpus = work.result()
    except StoppedWaiting as stop:  # the loading thread saw the stop request before this loop did
        raise StoppedWhileLoading(stop.request) from None
    own = corpus.vocabulary
    if not own.is_gpt2:
        per_token = corpus.train_bytes_per_token
        hooks.event("vocabulary", tokenizer=own.name, size=own.size, digest=own.digest, bytes_per_token=per_token)
    hooks.event(
        "corpus",
        description=corpus.description,
        train_tokens=len(corpus.train),
        train_bytes=corpus.train_bytes,
        digest=corpus.digest,
    )
    return corpus


def _documents(done: int, total: int | None) -> str:
    return f"{done:,} documents" if total is None else f"{done:,} of {total:,} documents"


class _Abandoned(Exception):
    """Raised inside the loading thread to end it."""


class _LoadingThread(Generic[T]):
    """Runs a function in a daemon thread. Once `abandoned` is set, the function ends at its next call of `progress`."""

    def __init__(
        self, function: Callable[[], T], phase: LongPhase, name: str, wait_for_space: Callable[[], object]
    ) -> None:
        self._function, self._phase, self._name, self._wait_for_space = function, phase, name, wait_for_space
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._silent_since: float | None = None
        self.tokenised: tuple[int, int | None] | None = None
        """Number of tokenised documents, and of all documents if known."""
        self.done = threading.Event()
        self.abandoned = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="corpus", daemon=True).start()

    def result(self) -> T:
        """Return the function's result, or raise its exception."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def progress(self, step: str, done: int, total: int | None) -> None:
        """Report progress; the function that runs in the thread calls this.

        The steps "fetch" and "merge" announce a download and the computation of a vocabulary, during which a library
        reports no progress.
        """
        if self.abandoned.is_set():
            raise _Abandoned
        if step == "tokenise":  # only tokenising writes to the disk; reading a cache works on a full disk
            self._wait_for_space()
            if self.abandoned.is_set():
                raise _Abandoned
            self.tokenised = done, total
        detail = ""
        if step in ("vocabulary", "merge"):
            self._phase.enter(VOCABULARY_PHASE)
            detail = "computing merges" if step == "merge" else _documents(done, total)
        elif step == "tokenise":
            self._phase.enter(self._name)
        self._silent_since = time.monotonic() if step in ("fetch", "merge") else None
        self._phase.heartbeat(detail)

    def heartbeat_while_silent(self) -> None:
        """Send a heartbeat if a library is at work that reports no progress."""
        since = self._silent_since
        if since is not None and time.monotonic() - since < FETCH_SECONDS:
            self._phase.beat()

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()
