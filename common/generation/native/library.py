"""Loads the compiled library and declares its structures and functions for ctypes, as `decoder.cpp` defines them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from functools import lru_cache
from pathlib import Path

import torch

from common.generation.native.build import library_path


class LinearStructure(Structure):
    """A linear layer: sizes and pointers to its packed weights, scales and bias."""

    _fields_ = (
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("weight", c_void_p),
        ("weight8", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
    )


class NormStructure(Structure):
    """A norm; without weights it is the root mean square."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float))


class LayerStructure(Structure):
    """One block."""

    _fields_ = (
        ("norm1", NormStructure),
        ("norm2", NormStructure),
        ("qkv", LinearStructure),
        ("out", LinearStructure),
        ("up", LinearStructure),
        ("down", LinearStructure),
    )


class ModelStructure(Structure):
    """The model."""

    _fields_ = (
        ("layers", c_int32),
        ("width", c_int32),
        ("heads", c_int32),
        ("activation", c_int32),
        ("qk_norm", c_int32),
        ("embedding_norm", c_int32),
        ("capacity", c_int32),
        ("rms_eps", c_float),
        ("softcap", c_float),
        ("embedding", c_void_p),
        ("rotations", c_void_p),
        ("final_norm", NormStructure),
        ("head", LinearStructure),
        ("layer", POINTER(LayerStructure)),
    )


class GatesStructure(Structure):
    """The gates of all branches."""

    _fields_ = (
        ("count", c_int32),
        ("inner", c_int32),
        ("width", c_int32),
        ("first", c_void_p),
        ("first_bias", c_void_p),
        ("last", c_void_p),
        ("last_bias", c_void_p),
    )


class PassStructure(Structure):
    """The arguments of one forward pass."""

    _fields_ = (
        ("count", c_int32),
        ("slots", c_int32),
        ("tokens", c_void_p),
        ("slot", c_void_p),
        ("position", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("scales", c_void_p),
        ("states", c_void_p),
        ("logits", c_void_p),
        ("hidden", c_void_p),
    )


class Unavailable(Exception):
    """The library cannot be used on this machine; the message gives the reason."""


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """Return the library. Raises Unavailable."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in ("AVX2", "AVX512"):
        raise Unavailable(f"it needs a processor with AVX2, and PyTorch reports {capability}")
    path = library_path()
    if not path.exists():
        raise Unavailable("it was not compiled; `make install` compiles it if there is a C++ compiler")
    return _declared(path)


def _declared(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be loaded: {error}") from error
    for name in ("tidal_pack", "tidal_pack8"):
        function = getattr(library, name)
        function.argtypes, function.restype = (c_void_p, c_int32, c_int32, c_void_p), None
    for name in ("tidal_forward", "tidal_project"):
        function = getattr(library, name)
        function.argtypes, function.restype = (POINTER(ModelStructure), POINTER(PassStructure), c_int32), None
    library.tidal_gates.argtypes = (POINTER(GatesStructure), c_void_p, c_void_p, c_int32, c_void_p, c_int32)
    library.tidal_gates.restype = None
    return library
