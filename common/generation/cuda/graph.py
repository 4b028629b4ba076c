"""Steps recorded as CUDA graphs: the first time a kind of step is asked for it is captured, afterwards one call replays
its hundreds of kernels.

    steps = GraphSteps(model)
    steps.run(state, kind)

All graphs share one memory pool: what lies in it is dead between two replays, and replays follow one another on one
stream. What lives on is in the `StaticState`. Where capture fails, one line in the log says so and steps are launched
kernel by kernel from then on; on a CPU they always are. Leaves out: when to step (`batch`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from common.generation.cuda.state import StaticState
from common.generation.cuda.step import Kind, static_step
from common.generation.decoding_model import DecodingModel
from common.logging import get_logger

log = get_logger(__name__)

MOST_GRAPHS = 128
"""Graphs that are kept, the last used; one takes some MiB beside the pool."""
WARM_UPS = 3
"""Runs before a capture, in which libraries load and pick their kernels."""

Step = Callable[[DecodingModel, StaticState, Kind], None]


class GraphSteps:
    """The steps of one batch over `model`. With `compiled`, torch.compile fuses their kernels, which takes minutes for
    every kind. `graphs` False launches every kernel. Not for several threads."""

    def __init__(self, model: DecodingModel, *, graphs: bool = True, compiled: bool = False) -> None:
        self._model = model
        self._step: Step = _compiled() if compiled else static_step
        self._graphs = graphs and model.device.type == "cuda"
        self._captured: OrderedDict[Kind, torch.cuda.CUDAGraph] = OrderedDict()
        self._pool: Any = None

    @property
    def captured(self) -> int:
        """Graphs that are kept."""
        return len(self._captured)

    def forget(self) -> None:
        """The tensors of the state have moved: captured steps are worthless."""
        self._captured.clear()
        self._pool = None

    def run(self, state: StaticState, kind: Kind) -> None:
        """One step of this kind; returns before the device has done it."""
        if not self._graphs:
            self._step(self._model, state, kind)
            return
        graph = self._captured.get(kind)
        if graph is None:
            graph = self._try_to_capture(state, kind)
            if graph is None:
                self._step(self._model, state, kind)
                return
            self._captured[kind] = graph
            if len(self._captured) > MOST_GRAPHS:
                torch.cuda.synchronize(self._model.device)  # the one that goes may still be running
                self._captured.popitem(last=False)
        self._captured.move_to_end(kind)
        graph.replay()

    def _try_to_capture(self, state: StaticState, kind: Kind) -> torch.cuda.CUDAGraph | None:
        stream = torch.cuda.current_stream(self._model.device)
        try:
            return self._capture(state, kind)
        except torch.AcceleratorError:
            raise  # the device itself is at fault, no other way of stepping helps
        except Exception as error:  # any kernel or library may refuse to be captured
            torch.cuda.set_stream(stream)  # the context manager leaves its own behind when the capture breaks off
            self._graphs = False
            self._captured.clear()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("CUDA graphs are off, every kernel is launched by itself", reason=reason)
            return None

    def _capture(self, state: StaticState, kind: Kind) -> torch.cuda.CUDAGraph:
        device = self._model.device
        make_stream: Any = torch.cuda.Stream
        here, side = torch.cuda.current_stream(device), make_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            warm_up(lambda: self._step(self._model, state, kind), state, kind)
        here.wait_stream(side)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may load a model meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._step(self._model, state, kind)
        return graph


def _compiled() -> Step:
    step: Step = torch.compile(static_step, dynamic=False, fullgraph=True)

    @torch.inference_mode(False)
    def outside_inference_mode(model: DecodingModel, state: StaticState, kind: Kind) -> None:
        step(model, state, kind)

    return outside_inference_mode


@torch.inference_mode()
def warm_up(step: Callable[[], None], state: StaticState, kind: Kind) -> None:
    """Run the step `WARM_UPS` times and leave what lives on in the state as it was: all rows are dead meanwhile.

    A dead row still writes its numbers, logits and hidden state, and the place in the cache behind its last position.
    """
    n = kind.rows
    kept = (state.remaining, state.logits, state.hidden, state.out)
    before = [tensor[:n].clone() for tensor in kept]
    state.remaining[:n] = 0
    for _ in range(WARM_UPS):
        step()
    for tensor, held in zip(kept, before, strict=True):
        tensor[:n] = held
