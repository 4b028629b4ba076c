"""A stand-in for a CUDA device on a machine without one. It computes on the CPU and records where the host waits.

    with StandInDevice() as device:
        model.to("cuda:0")
        …
    assert device.waits == Counter({"common/training/pretrain.py:_take_step": 4})

Python code sees tensors on "cuda:0" and takes its paths for CUDA. Ordinary CPU tensors hold the values, so the results
can be compared with those of the CPU. An operation raises `MixedDevices` where CUDA would refuse tensors of different
devices. Every operation for which the host would wait for a GPU is counted in `waits`, under the file and function of
this project that called it:

- reading a value: `item`, `tolist`, `cpu`, `bool(tensor)`, and copies to memory that is not pinned;
- results whose size depends on values: `nonzero`, an index of booleans, and others;
- copies from the host that are not both pinned and `non_blocking`. Some are hidden: `torch.tensor(…, device=…)`, a
  number assigned to positions that a tensor of integers selects, and a tensor on the CPU as an index.

Torch's C++ code sees these tensors on the device "meta". So autocast for CUDA has no effect, kernels for CUDA are not
run, and a capture of a CUDA graph fails. Tests in `tests/gpu` cover these on a real GPU.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

ROOT = Path(__file__).resolve().parent.parent
DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten

SIZE_DEPENDS_ON_VALUES = {
    "nonzero", "masked_select", "unique_dim", "unique_consecutive", "_unique", "_unique2", "bincount", "argwhere",
    "repeat_interleave",
}  # fmt: skip
"""Operations that read the size of their result from the device."""
READS_VALUES = {"_local_scalar_dense", "equal", "is_nonzero"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class MixedDevices(AssertionError):
    """Raised for an operation on tensors of different devices."""


class OnDevice(torch.Tensor):
    """A tensor on the stand-in device; `inner` is the CPU tensor that holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        tensor: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        tensor.inner = inner
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl
    # torch declares these attributes as writable, so replacing them by properties is an error for the type checker.
    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the values as a CPU tensor, so that `torch.save` can write them from any thread."""
        return self.inner.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Copy to the host, as torch does for a tensor on a GPU."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
        """Copy `data` from the host."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Convert an assigned number to a CPU tensor first: torch does so for CUDA, but not for "meta"."""
        if isinstance(value, bool | int | float) and any(
            isinstance(part, torch.Tensor | list) for part in (index if isinstance(index, tuple) else (index,))
        ):
            value = torch.tensor(value, dtype=self.dtype)
        super().__setitem__(index, value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called on a tensor of the stand-in device after the device was closed")


class StandInDevice(TorchDispatchMode):
    """Emulates the device "cuda:0" while it is entered; `waits` counts the waits of the host by their place."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        """Number of operations on the device, by name."""
        self._pinned: dict[int, torch.UntypedStorage] = {}
        """Storages in pinned memory by their address. They are kept, so that no other storage gets the address."""
        self._patches: list[Any] = []

    def __enter__(self) -> StandInDevice:
        cuda = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "is_bf16_supported": lambda *_: True,
            "synchronize": lambda *_: self._wait("synchronize"),
            "get_rng_state_all": lambda: [torch.get_rng_state()],
            "set_rng_state_all": lambda states: None,
            "manual_seed_all": lambda seed: None,
            "is_current_stream_capturing": lambda: False,
            "current_stream": lambda *_: None,
            "set_stream": lambda _: None,
            "reset_peak_memory_stats": lambda *_: None,
            "max_memory_allocated": lambda *_: 0,
            "memory_allocated": lambda *_: 0,
            "Event": _Event,
        }
        self._patches = [mock.patch.object(torch.cuda, name, value) for name, value in cuda.items()]
        self._patches.append(mock.patch.object(torch, "Generator", _Generator))
        for patch in self._patches:
            patch.start()
        self._precision = torch.get_float32_matmul_precision()
        self._lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor` copies to the device under this mode
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        torch._C._set_only_lift_cpu_tensors(self._lifts)
        torch.set_float32_matmul_precision(self._precision)
        for patch in reversed(self._patches):
            patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        here = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target).type in ("cuda", "meta")
        if here or to_device:
            self.operations[name] += 1
            # In inference mode, composite operations arrive whole. Their parts have to be checked.
            if func._can_decompose() and name not in ("_to_copy", "is_pinned", "pin_memory"):
                super().__enter__()
                try:
                    parts = func.decompose(*args, **kwargs)
                finally:
                    super().__exit__(None, None, None)
                if parts is not NotImplemented:
                    return parts
        if name == "is_pinned":
            return not here and self._is_pinned(args[0])
        if name in ("_pin_memory", "pin_memory"):
            return self._pin(args[0].clone())
        if kwargs.pop("pin_memory", False):
            return self._pin(func(*args, **kwargs))
        if name == "_to_copy":
            return self._copy_to(func, args, kwargs, to_device if target is not None else bool(here))
        if name == "copy_":
            return self._copy_in_place(func, args, kwargs)
        if not here and not to_device:
            return func(*args, **kwargs)
        self._check(name, args, tensors)
        if to_device:
            kwargs["device"] = torch.device("cpu")
        out = func(*_inner(args), **_inner(kwargs))
        # In inference mode, a view of an ordinary tensor is an ordinary tensor.
        view = bool(here) and func.is_view and not here[0].is_inference()
        with torch.inference_mode(False) if view else nullcontext():
            wrapped = tree_map_only(torch.Tensor, OnDevice, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if here else wrapped

    def _check(self, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
        if name in READS_VALUES or name in SIZE_DEPENDS_ON_VALUES:
            self._wait(name)
        if name in INDEXING:
            self._check_indexing(name, args)
            return
        for tensor in tensors:
            if isinstance(tensor, OnDevice):
                continue
            if tensor.dim() > 0:
                shapes = [tuple(each.shape) for each in tensors]
                raise MixedDevices(f"{name} got tensors on the CPU and on the device, with shapes {shapes}")
            if name == "where":  # other operations pass a CPU tensor without dimensions to the kernel as a number
                self._wait("where of a CPU scalar")

    def _check_indexing(self, name: str, args: Any) -> None:
        indexed, indices, *rest = args
        indices = [index for index in indices if index is not None]
        if not isinstance(indexed, OnDevice) or (rest and rest[0].dim() > 0 and not isinstance(rest[0], OnDevice)):
            raise MixedDevices(f"{name} got a tensor on the CPU, and indices or values on the device")
        if any(not isinstance(index, OnDevice) for index in indices):
            self._wait(f"{name} by a CPU tensor")
        number = bool(rest) and not isinstance(rest[0], OnDevice)
        if any(index.dtype is torch.bool for index in indices):
            if not number:  # to assign a number by a mask, torch uses `masked_fill_`, which does not wait
                self._wait(f"{name} by booleans")
        elif number:
            self._wait(f"{name} of a number")

    def _copy_to(self, func: Any, args: Any, kwargs: Any, to_device: bool) -> Any:
        source = args[0]
        if isinstance(source, OnDevice) and not to_device:
            self._wait("copy to the host")
        elif not isinstance(source, OnDevice) and to_device:
            asynchronous = kwargs.get("non_blocking") and self._is_pinned(source)
            if not asynchronous:
                self._wait("copy to the device")
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        copied = func(*_inner(args), **kwargs)
        return OnDevice(copied) if to_device else copied

    def _copy_in_place(self, func: Any, args: Any, kwargs: Any) -> Any:
        target, source = args[:2]
        if isinstance(target, OnDevice) != isinstance(source, OnDevice):
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            host = source if isinstance(target, OnDevice) else target
            if not (non_blocking and self._is_pinned(host)):
                self._wait("copy to the device" if host is source else "copy to the host")
        func(*_inner(args), **kwargs)
        return target

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned

    def _wait(self, what: str) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT / "common"):
                self.waits[f"{path.relative_to(ROOT)}:{frame.f_code.co_name}: {what}"] += 1
                return
            frame = frame.f_back
        self.waits[what] += 1


def _inner(values: Any) -> Any:
    return tree_map_only(OnDevice, lambda tensor: tensor.inner, values)


class _Event:
    """Replaces `torch.cuda.Event`: here, every operation is complete when it returns."""

    def record(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Generator:
    """Replaces `torch.Generator`: a generator for the stand-in device is one on the CPU."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:  # type: ignore[misc]
        return torch._C.Generator("cpu")
