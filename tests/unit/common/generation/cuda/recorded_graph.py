"""A stand-in for CUDA graphs: it records the operations of a step on the CPU, and replays them without its Python code.

A replay runs every recorded operation again with the tensors that it had, and writes the results into the tensors of
the recording. As on a GPU, a number that Python computed during the recording stays the same in every replay, and the
recording itself leaves the tensors that existed before it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class RecordedGraph:
    """Replaces `torch.cuda.CUDAGraph`."""

    made: int = 0
    """Number of graphs that were created."""

    def __init__(self) -> None:
        RecordedGraph.made += 1
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        """Run the recorded operations again."""
        self.replays += 1
        for operation, args, kwargs, results in self.operations:
            for old, new in zip(_tensors(results), _tensors(operation(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self._graph = graph
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for tensor in _tensors((args, kwargs)):
                storage = tensor.untyped_storage()
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        results = func(*args, **kwargs)
        self._graph.operations.append((func, args, kwargs, results))
        return results

    def undo(self) -> None:
        """Restore all tensors that the recording changed."""
        for storage, before in self._before.values():
            storage.copy_(before)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


class _Stream:
    def __init__(self, *_: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass


@contextmanager
def _record(graph: RecordedGraph, **_: object) -> Iterator[None]:
    recording = _Recording(graph)
    with recording:
        yield
    recording.undo()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the graphs and streams of torch.cuda for the current test."""
    for name, value in {
        "CUDAGraph": RecordedGraph,
        "graph": _record,
        "graph_pool_handle": lambda: (0, 1),
        "Stream": _Stream,
        "stream": lambda _: nullcontext(),
        "current_stream": _Stream,
        "set_stream": lambda _: None,
        "synchronize": lambda *_: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(RecordedGraph, "made", 0)
