"""Decoding steps recorded as CUDA graphs.

The first step of each `StepShape` is captured. Later steps replay the graph, so that one call launches hundreds of
kernels.

    steps = GraphSteps(model)
    steps.run(state, shape)

All graphs share one memory pool, because replays run one after the other on one stream and nothing in the pool is
needed between two replays. Everything that is needed later is in the `StaticState`. When a capture fails, a warning is
logged once, and all later steps launch their kernels one by one. On a CPU, all steps do so. `batch` decides when to
launch a step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from common.generation.cuda.state import StaticState
from common.generation.cuda.step import StepShape, static_step
from common.generation.decoding_model import DecodingModel
from common.logging import get_logger

log = get_logger(__name__)

MAX_GRAPHS = 128
"""Largest number of graphs that are kept; the least recently used graph is deleted first. A graph takes some MiB in
addition to the pool."""
WARM_UPS = 3
"""Number of runs of a step before its capture, in which libraries load and choose their kernels."""

StepFunction = Callable[[DecodingModel, StaticState, StepShape], None]


class GraphSteps:
    """Runs the steps of one batch over `model`; not thread-safe.

    With `compiled`, torch.compile fuses the kernels, which takes minutes for each shape. With `graphs` False, nothing
    is captured.
    """

    def __init__(self, model: DecodingModel, *, graphs: bool = True, compiled: bool = False) -> None:
        self._model = model
        self._step: StepFunction = _compiled() if compiled else static_step
        self._graphs = graphs and model.device.type == "cuda"
        self._captured: OrderedDict[StepShape, torch.cuda.CUDAGraph] = OrderedDict()
        self._pool: Any = None

    @property
    def captured(self) -> int:
        """Number of captured graphs."""
        return len(self._captured)

    def discard_captures(self) -> None:
        """Discard all graphs. This is necessary after the tensors of the state have moved."""
        self._captured.clear()
        self._pool = None

    def run(self, state: StaticState, shape: StepShape) -> None:
        """Run one step of this shape. Returns before the device has finished it."""
        if not self._graphs:
            self._step(self._model, state, shape)
            return
        graph = self._captured.get(shape)
        if graph is None:
            graph = self._try_to_capture(state, shape)
            if graph is None:
                self._step(self._model, state, shape)
                return
            self._captured[shape] = graph
            if len(self._captured) > MAX_GRAPHS:
                torch.cuda.synchronize(self._model.device)  # the graph to be deleted may still be running
                self._captured.popitem(last=False)
        self._captured.move_to_end(shape)
        graph.replay()

    def _try_to_capture(self, state: StaticState, shape: StepShape) -> torch.cuda.CUDAGraph | None:
        stream = torch.cuda.current_stream(self._model.device)
        try:
            return self._capture(state, shape)
        except torch.AcceleratorError:
            raise  # a device fault: running without a graph would not help
        except Exception as error:  # a capture can fail in any kernel or library
            torch.cuda.set_stream(stream)  # a failed capture leaves its own stream as the current one
            self._graphs = False
            self._captured.clear()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("CUDA graphs are off, kernels are launched one by one", reason=reason)
            return None

    def _capture(self, state: StaticState, shape: StepShape) -> torch.cuda.CUDAGraph:
        device = self._model.device
        make_stream: Any = torch.cuda.Stream
        here, side = torch.cuda.current_stream(device), make_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            warm_up(lambda: self._step(self._model, state, shape), state, shape)
        here.wait_stream(side)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # In the mode "thread_local", another thread may load a model during the capture.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._step(self._model, state, shape)
        return graph


def _compiled() -> StepFunction:
    step: StepFunction = torch.compile(static_step, dynamic=False, fullgraph=True)

    @torch.inference_mode(False)
    def outside_inference_mode(model: DecodingModel, state: StaticState, shape: StepShape) -> None:
        step(model, state, shape)

    return outside_inference_mode


@torch.inference_mode()
def warm_up(step: Callable[[], None], state: StaticState, shape: StepShape) -> None:
    """Run the step `WARM_UPS` times without changing any state that is used later.

    All slots are inactive during these runs. But even for inactive slots, the step overwrites outputs, logits and
    hidden states. They are saved before the runs and restored afterwards. The step also writes to the cache position
    after the last filled one of each slot, which holds nothing yet.
    """
    n = shape.slots
    outputs = (state.tokens_remaining, state.logits, state.hidden, state.outputs)
    before = [tensor[:n].clone() for tensor in outputs]
    state.tokens_remaining[:n] = 0
    for _ in range(WARM_UPS):
        step()
    for tensor, saved in zip(outputs, before, strict=True):
        tensor[:n] = saved
