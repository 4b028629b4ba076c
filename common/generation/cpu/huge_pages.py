"""Tensors in memory that is mapped directly from the kernel.

Weights are placed in huge pages, and tensors of zeros take no memory until they are written.

Decoding a token reads all weights. With pages of 4 KiB a sequential read of 51 MB needs 12,500 address translations;
with huge pages of 2 MiB it reaches the speed of the memory (measured on an EPYC: the float32 head of the default model
takes 3.6 ms in pages of 4 KiB and 2.0 ms in huge pages). On a Linux without huge pages, and on other systems, the
weights are in ordinary memory.
"""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch
from torch import Tensor

PAGE = 2 * 1024 * 1024
"""Number of bytes in a huge page on x86-64, and on arm64 with 4 KiB base pages."""


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return a tensor of zeros whose small pages the kernel allocates on the first write; unused parts take no memory.

    `torch.zeros` would write all of its memory when the allocator reuses a freed block.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or nbytes < PAGE:
        return torch.zeros(shape, dtype=dtype, device=device)
    return _mapped(nbytes).view(dtype).view(shape)


def in_huge_pages(tensor: Tensor) -> Tensor:
    """Return a contiguous copy in huge pages.

    A tensor that is smaller than a huge page, or not on the CPU, is copied to ordinary memory of its device.
    """
    if tensor.device.type != "cpu" or tensor.nbytes < PAGE:
        return tensor.clone(memory_format=torch.contiguous_format)
    return _mapped(tensor.nbytes, huge=True).view(tensor.dtype).view(tensor.shape).copy_(tensor)


def _mapped(nbytes: int, *, huge: bool = False) -> Tensor:
    """Return a tensor of `nbytes` zero bytes that is mapped from the kernel and aligned to a huge page."""
    memory = mmap.mmap(-1, nbytes + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # raised if the kernel has no huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    raw = torch.frombuffer(memory, dtype=torch.uint8)
    first = -raw.data_ptr() % PAGE
    return raw[first : first + nbytes]


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 32 MiB instead of returning each of them to the kernel.

    glibc raises its thresholds to the size of the largest mapped block that was freed, so a block of 31 MiB is
    allocated and freed here. Each step allocates and frees its logits; without this call their pages are mapped again
    in every step, which took 2 of the 11 ms of a step at 16 slots.
    """
    torch.empty(31 * 1024 * 1024, dtype=torch.uint8)
