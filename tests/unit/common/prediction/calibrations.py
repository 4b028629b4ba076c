"""A calibration with round numbers, from which tests compute predictions by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from common.prediction.calibration import BlockCost, Calibration, HeadCost, LinearCost, MemoryCost
from common.prediction.machine import Machine

CPU_MACHINE = Machine(processor="Made-up CPU", cores=2, device="cpu", torch="2.0", tidal="0.1.0")
GPU_MACHINE = CPU_MACHINE.model_copy(update={"device": "Made-up GPU"})


def calibration(machine: Machine = CPU_MACHINE) -> Calibration:
    """Return the calibration of `machine`: 1 ms per block and 2 ms per head for each call, and costs per token."""
    return Calibration(
        machine=machine,
        measured_at=datetime(2026, 1, 2, tzinfo=UTC),
        memory_bytes=8_000_000_000,
        device_memory_bytes=4_000_000_000 if machine.uses_gpu else None,
        threads=2,
        precision="float32",
        gemm_flops_per_second=1e11,
        blocks=tuple(
            BlockCost(width=width, training=LinearCost(fixed=1e-3, per_token=width * 1e-7)) for width in (64, 256)
        ),
        heads=tuple(
            HeadCost(width=width, vocabulary=1000, training=LinearCost(fixed=2e-3, per_token=width * 2e-7))
            for width in (64, 256)
        ),
        attention_base=1e-9,
        attention_per_channel=1e-10,
        evaluation_block=0.25,
        evaluation_head=0.5,
        update_seconds_per_parameter=1e-9,
        decode_fixed=1e-3,
        decode_per_layer=1e-4,
        decode_per_weight=1e-10,
        start_seconds=5.0,
        tokenise_bytes_per_second=1e6,
        bytes_per_token=4.0,
        builtin_bytes=4_000_000,
        disk_bytes_per_second=1e8,
        memory=MemoryCost(
            base=100_000_000,
            per_width=40.0,
            per_ffn=12.0,
            per_attention=12.0,
            embedding=8.0,
            head_gradients=2.0,
            head_per_logit=4.0,
            head_logits=2_500_000,
        ),
    )
