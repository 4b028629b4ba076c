"""An engine with its admission queue, emitter and model cache, run in the test process."""

from __future__ import annotations

from pathlib import Path

import redis
import torch

from common.artifacts import ArtifactStore
from services.generator.admission import AdmissionQueue
from services.generator.emitter import Emitter
from services.generator.engine import Engine
from services.generator.model_cache import ModelCache

CAPACITY = 2**30


class Serving:
    """Runs an engine. `finished` lists the ids of the requests in the order in which their last events were sent."""

    def __init__(
        self,
        client: redis.Redis,
        experiments: Path,
        *,
        slots: int = 4,
        total_seconds: float = 60.0,
        capacity: int = CAPACITY,
    ) -> None:
        models = ModelCache(ArtifactStore(experiments), device=torch.device("cpu"), capacity=capacity)
        self.finished: list[str] = []
        self.admission = AdmissionQueue(client, models)
        self.emitter = Emitter(client, presence_seconds=0.2, on_finished=self.finished.append)
        self.engine = Engine(self.admission, self.emitter, slots=slots, total_seconds=total_seconds)

    def handle(self, *request_ids: str) -> None:
        """Submit all requests at once, and run the engine until all are answered."""
        for request_id in request_ids:
            self.engine.submit(request_id)
        try:
            while not self.engine.idle:
                self.engine.step()
        finally:
            self.emitter.drain()

    def close(self) -> None:
        self.admission.close()
        self.emitter.close()
