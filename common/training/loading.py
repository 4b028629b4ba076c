"""Opening a job's corpus, and saying during any long phase that it gets on.

Tokenising a large corpus takes hours: meanwhile a wish to stop or drain must be heard, and the silence of a healthy
training must not be taken for a hang. A pause waits for the first checkpoint: leaving earlier would keep nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

from common.config.lm import DataConfig
from common.data import Corpus, open_corpus
from common.training.hooks import StopRequest, TrainingHooks

BEAT_SECONDS = 5.0


class StoppedWhileLoading(Exception):
    """Somebody wants out before there is any state to save."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class LongPhase:
    """Enters a phase; `beat()` at every piece of work in it says so again, every few seconds at most."""

    def __init__(self, hooks: TrainingHooks, name: str) -> None:
        self._hooks, self._name = hooks, name
        self._enter()

    def beat(self) -> None:
        """Wait while the right to run is in doubt, then be heard."""
        self._hooks.wait_while_suspended()
        if time.monotonic() - self._heard_at >= BEAT_SECONDS:
            self._enter()

    def _enter(self) -> None:
        self._hooks.phase(self._name)
        self._heard_at = time.monotonic()


def load_corpus(config: DataConfig, data_dir: Path, hooks: TrainingHooks) -> Corpus:
    """`open_corpus` as the phase "loading data", with its event; StoppedWhileLoading on a wish to stop or drain."""
    phase = LongPhase(hooks, "loading data")

    def loading(_name: str, _done: int, _total: int | None) -> None:
        phase.beat()
        request = hooks.requested_stop()
        if request in (StopRequest.STOP, StopRequest.DRAIN):
            raise StoppedWhileLoading(request)

    corpus = open_corpus(config, data_dir=data_dir, progress=loading)
    hooks.event("corpus", description=corpus.description, train_tokens=len(corpus.train), digest=corpus.digest)
    return corpus
