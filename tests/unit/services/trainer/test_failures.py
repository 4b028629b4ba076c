"""A failure message names the cause and the setting to change."""

from __future__ import annotations

import pytest
import torch

from common.errors import CheckpointError
from services.trainer.failures import classify_failure


def test_cuda_out_of_memory_has_its_own_code_and_names_the_settings_to_lower() -> None:
    failure = classify_failure(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB\nmore"))
    assert (failure.code, failure.kind) == ("cuda_out_of_memory", "cuda_oom")
    for text in ("3.00 GiB", "training.micro_batch_size", "model.context_length", "ppo.num_envs"):
        assert text in failure.message
    assert "more" not in failure.message


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB")])
def test_lack_of_host_memory_is_recognised(error: Exception) -> None:
    failure = classify_failure(error)
    assert (failure.code, failure.kind) == ("out_of_memory", "user")
    assert "micro_batch_size" in failure.message


def test_an_error_of_the_tree_keeps_its_code_and_message() -> None:
    failure = classify_failure(CheckpointError("x.pth: damaged"))
    assert (failure.code, failure.message) == ("invalid_checkpoint", "x.pth: damaged")


def test_anything_else_is_internal_with_its_type() -> None:
    failure = classify_failure(ZeroDivisionError("division by zero"))
    assert failure.code == "internal_error"
    assert "ZeroDivisionError: division by zero" in failure.message
