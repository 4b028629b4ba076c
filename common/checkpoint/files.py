"""Reads and writes single files of checkpoints, with protection against crashes, full disks and malicious files.

The `write_*` functions write a file in place and flush it to the disk. For an atomic write, their callers use a
temporary name and rename the file (`common.files.write_atomic`). Reading never runs code from the file.
`common.checkpoint.state` interprets the tensors, and `common.checkpoint.manager` handles folders of checkpoints.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import uuid
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import CheckpointError, NotFoundError
from common.files import flush

METADATA_KEY = "tidal"
"""Key of Tidal's JSON metadata in the header of a safetensors file."""
WRITE_REFUSED = ("PytorchStreamWriter", "inline_container", "write failed", "iostream error")
"""Parts of torch's error messages. If an error message of torch contains one of these parts, the operating system has
reported an error for a write."""
PROBE_BYTES = 1 << 20
"""Number of bytes that `_probe_errno` writes to find out why a write failed."""


def safe_load(path: str | Path, *, map_location: torch.device | str = "cpu") -> Any:
    """Return the object in a file written by torch.save, which may contain only tensors, plain values and containers.

    Raises NotFoundError if the file does not exist. Raises CheckpointError if the file is truncated, is not a
    checkpoint, or contains pickled code, which is never run.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such checkpoint file")
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    is_zip = head == b"PK\x03\x04"
    if is_zip and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: the file is truncated (its zip directory is missing); copy it again")
    try:
        with warnings.catch_warnings():
            # For a plain pickle, torch warns about the pickle protocol and then raises an error. The error is enough,
            # so the warning is suppressed.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if is_zip or "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise CheckpointError(
                f"{path}: contains pickled objects other than tensors and plain values, which Tidal never loads; "
                "save a state dict instead of a whole module"
            ) from error
        raise CheckpointError(f"{path}: not a checkpoint (the file was not written by torch.save)") from error
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, IndexError, OSError) as error:
        state = "damaged" if is_zip else "not a checkpoint (the file was not written by torch.save)"
        raise CheckpointError(f"{path}: {state}: {_first_line(error)}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return Tidal's metadata in the header of a safetensors file ({} if there is none), without reading its tensors.

    Raises CheckpointError if the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {_first_line(error)}") from error
    return values if isinstance(values, dict) else {}


def load_tensors(path: Path, *, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file and Tidal's metadata in its header ({} if there is none).

    Raises NotFoundError if the file does not exist, CheckpointError if it is damaged.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = (file.metadata() or {}).get(METADATA_KEY, "{}")
        values = json.loads(metadata)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {_first_line(error)}") from error
    return tensors, values if isinstance(values, dict) else {}


def unshared_cpu_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as safetensors requires them: detached, on the CPU, contiguous and without shared memory."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.numel() * value.element_size():
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value
    return result


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file in place and flush it to the disk. Raises OSError if a write fails."""
    try:
        # Other libraries, such as transformers, require the key "format".
        header = {"format": "pt", METADATA_KEY: json.dumps(metadata, sort_keys=True)}
        save_file(unshared_cpu_tensors(tensors), path, metadata=header)
    except SafetensorError as error:
        # The message contains the operating system's errno, as in "(os error 28)", which `is_full` recognises.
        raise OSError(errno.EIO, _first_line(error)) from error
    flush(path)


def write_object(path: Path, value: Any) -> None:
    """Write `value` with torch.save in place and flush it to the disk.

    Raises TypeError if torch.load with weights_only could not read `value`, OSError if a write fails.
    """
    try:
        torch.save(value, path)
    except RuntimeError as error:
        raise OSError(_probe_errno(path.parent, error), f"the state cannot be written: {_first_line(error)}") from error
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if unsafe:
        raise TypeError(
            f"the state contains {', '.join(sorted(unsafe))}; use only tensors, numbers, text, lists and dicts"
        )
    flush(path)


def _probe_errno(folder: Path, error: RuntimeError) -> int:
    """Write a probe file to `folder` to find the errno of a failed write, which torch's error does not contain.

    If the probe succeeds, return ENOSPC if torch's message contains one of WRITE_REFUSED, otherwise EIO.
    """
    probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as probe_error:
        return probe_error.errno or errno.EIO
    finally:
        with suppress(OSError):
            probe.unlink()
    return errno.ENOSPC if any(text in str(error) for text in WRITE_REFUSED) else errno.EIO


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
