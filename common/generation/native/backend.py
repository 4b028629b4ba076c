"""Chooses the code that computes generation on a CPU: the C++ library of this package, or PyTorch."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from common.errors import ConfigError
from common.generation.cpu.packed_linear import Precision
from common.generation.native.library import Unavailable
from common.generation.native.model import NativeModel
from common.logging import get_logger
from common.model import TransformerLM

log = get_logger(__name__)


class Backend(StrEnum):
    """The code that computes generation. `AUTO` is `NATIVE` where that works, and otherwise `TORCH`."""

    AUTO = "auto"
    NATIVE = "native"
    TORCH = "torch"


def native_model(model: TransformerLM, precision: Precision, backend: Backend) -> NativeModel | None:
    """Return the model packed for the C++ library, or None if PyTorch computes it.

    Raises ConfigError with the reason if `backend` is NATIVE and the library cannot be used.
    """
    if backend is Backend.TORCH:
        return None
    try:
        if model.device.type != "cpu":
            raise Unavailable(f"it computes on a CPU, and the model is on {model.device.type}")
        if precision is Precision.BFLOAT16:
            raise Unavailable("it has no bfloat16")
        return NativeModel(model, int8=precision is Precision.INT8)
    except Unavailable as error:
        if backend is Backend.NATIVE:
            raise ConfigError(f"the native generation backend cannot be used: {error}") from error
        if model.device.type == "cpu":
            _log_once(str(error))
        return None


@lru_cache(maxsize=8)
def _log_once(reason: str) -> None:
    log.info("PyTorch generates, because the native backend cannot be used", reason=reason)
