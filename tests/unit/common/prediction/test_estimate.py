"""Predictions for given calibrations and earlier runs, compared with numbers computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import LMConfig, load_lm_config
from common.prediction.duration import calibrated_seconds, micro_batch_seconds, phase_seconds, validation_seconds
from common.prediction.estimate import Candidate, predict_training, shape_key
from common.prediction.memory import peak_bytes
from common.prediction.model_size import parameters
from common.prediction.plan import CorpusSize, plan_training
from common.prediction.words import describe_prediction
from tests.unit.common.prediction.calibrations import CPU_MACHINE, GPU_MACHINE, calibration
from tidal_client.wire.prediction import MachinePrediction, TrainingMeasurement

CORPUS = CorpusSize(110_000, 1_100)


def config(**training: Any) -> LMConfig:
    return load_lm_config(
        None,
        {
            "model": {
                "d_model": 64,
                "num_heads": 2,
                "num_layers": 2,
                "ffn_dim": 256,
                "vocab_size": 1000,
                "context_length": 10,
            },
            "training": {
                "micro_batch_size": 4,
                "effective_batch_size": 4,
                "max_steps": 10,
                "compile": "off",
                **training,
            },
            "evaluation": {"batch_size": 10, "prompts": ["a", "b"], "sample_tokens": 5},
        },
    )


def run(given: LMConfig, speed: float, memory: int, **changes: Any) -> TrainingMeasurement:
    return TrainingMeasurement(
        **{
            "machine": CPU_MACHINE.key,
            "shape": shape_key(given),
            "device": "cpu",
            "precision": "float32",
            "compiled": False,
            "steps": 10,
            "tokens": 400,
            "seconds": 12.0,
            "training_seconds": 4.0,
            "tokens_per_second": speed,
            "memory_bytes": memory,
            **changes,
        }
    )


def on(candidate: Candidate, given: LMConfig | None = None, corpus: CorpusSize | None = CORPUS) -> MachinePrediction:
    [found] = predict_training(given or config(), corpus, [candidate]).machines
    return found


def test_a_micro_batch_costs_head_blocks_and_attention() -> None:
    # 40 tokens. Head: 2 ms + 40 * 12.8 us. Two blocks: 1 ms + 40 * 6.4 us each. Attention: 2 layers * 40 tokens * 10
    # positions * 2 heads * (1 + 32 * 0.1) ns.
    expected = 2e-3 + 40 * 12.8e-6 + 2 * (1e-3 + 40 * 6.4e-6) + 2 * 40 * 10 * 2 * 4.2e-9
    assert micro_batch_seconds(config().model, 10, 40, calibration()) == pytest.approx(expected)


def test_between_two_widths_the_cost_follows_a_power_of_the_width() -> None:
    model = config().model.model_copy(update={"d_model": 128, "ffn_dim": 512, "num_heads": 4, "num_layers": 1})
    # Both costs per token are proportional to the width in this calibration: 12.8 us in the block, 25.6 us in the head.
    expected = 3e-3 + 40 * (12.8e-6 + 25.6e-6) + 40 * 10 * 4 * 4.2e-9
    assert micro_batch_seconds(model, 10, 40, calibration()) == pytest.approx(expected)


def test_each_phase_is_predicted() -> None:
    given, measured = config(), calibration()
    plan = plan_training(given, CORPUS)
    assert plan is not None
    phases = phase_seconds(given, plan, measured, text_bytes=2_000_000, tokens_per_second=None)
    P = parameters(given.model)
    steps = 10 * micro_batch_seconds(given.model, 10, 40, measured) + 10 * P * 1e-9
    # 1,100 tokens are 100 chunks, fewer than 16 batches. So the validation before the first step covers all of them, as
    # does the one at the end.
    validation = validation_seconds(given.model, 10, 2000, measured)
    weights = 2 * (4 * 64 * 64 + 2 * 64 * 256) + 64 * 1000
    assert phases == pytest.approx(
        {
            "start": 5.0,
            "tokenise": 2.0,
            "training": steps,
            "validation": validation,
            "samples": 10 * (1e-3 + 2e-4 + weights * 1e-10),
            "saving": 20 * P / 1e8,
        }
    )


def test_samples_between_the_steps_take_time() -> None:
    given = config()
    often = given.model_copy(update={"evaluation": given.evaluation.model_copy(update={"samples_every_steps": 3})})
    once, four = (on(Candidate(CPU_MACHINE, calibration()), each).phases["samples"] for each in (given, often))
    assert four == pytest.approx(4 * once, abs=2e-3)  # after the steps 3, 6 and 9, and at the end


def test_a_training_without_remaining_steps_has_no_speed() -> None:
    [found] = predict_training(config(), CORPUS, [Candidate(CPU_MACHINE, calibration())], first_step=10).machines
    assert (found.tokens_per_second, found.phases["training"]) == (None, 0.0)
    assert found.duration_seconds and found.phases["validation"] > 0


def test_the_memory_is_the_sum_of_its_parts() -> None:
    given = config()
    P, N = parameters(given.model), 40
    saved = N * (2 * (40 * 64 + 12 * 256 + 12 * 2 * 10) + 8 * 64)
    loss = 2 * 4 * 1000 * 64 + 4 * 40_000  # 40 tokens × 1000 entries of the vocabulary
    # 16 bytes per parameter, and 12 for the copy of a checkpoint that is written in the background.
    assert peak_bytes(given, 10, calibration().memory, gpu=False) == 100_000_000 + 28 * P + saved + loss
    assert peak_bytes(given, 10, calibration().memory, gpu=True) == 100_000_000 + 16 * P + saved + loss
    few = calibration().memory.model_copy(update={"head_logits": 10_000})
    assert peak_bytes(given, 10, few, gpu=True) == 100_000_000 + 16 * P + saved + loss - 4 * 30_000


def test_memory_for_a_copy_is_needed_only_if_a_checkpoint_is_written_during_the_training() -> None:
    def memory(**changes: Any) -> int:
        given = config()
        changed = {name: getattr(given, name).model_copy(update=values) for name, values in changes.items()}
        return on(Candidate(CPU_MACHINE, calibration()), given.model_copy(update=changed)).memory_bytes or 0

    least, copy = memory(), 12 * parameters(config().model)
    assert least == peak_bytes(config(), 10, calibration().memory, gpu=False, checkpoint=False)
    for changes in (
        {"evaluation": {"every_steps": 5}},
        {"checkpoint": {"every_steps": 5}},
        {"checkpoint": {"every_seconds": 1e-3}},
    ):
        assert memory(**changes) == least + copy, changes
    assert memory(checkpoint={"every_steps": 10}) == memory(evaluation={"every_steps": 10}) == least


def test_muon_keeps_one_moment_of_the_matrices_and_an_average_one_more_copy() -> None:
    plain = config()
    P, matrices = parameters(plain.model), 2 * (4 * 64 * 64 + 2 * 64 * 256)

    def peak(given: LMConfig, *, gpu: bool) -> int:
        return peak_bytes(given, 10, calibration().memory, gpu=gpu)

    for gpu, copies in ((False, 2), (True, 1)):
        assert peak(config(optimizer="muon"), gpu=gpu) == peak(plain, gpu=gpu) - copies * 4 * matrices
        assert peak(config(average_decay=0.99), gpu=gpu) == peak(plain, gpu=gpu) + copies * 4 * P


def test_an_update_by_muon_takes_the_time_of_its_matrix_products() -> None:
    plain, muon = config(), config(optimizer="muon")
    plan = plan_training(plain, CORPUS)
    assert plan is not None
    # 2 n² m FLOPs for the Gram matrix and for the last product, 2 n³ for its square; n = 64, m = 64 or 256.
    square, wide = 6 * 64**3, 4 * 64 * 64 * 256 + 2 * 64**3
    flops = 10 * 5 * 2 * (4 * square + 2 * wide)
    more = calibrated_seconds(muon, plan, calibration()) - calibrated_seconds(plain, plan, calibration())
    assert more == pytest.approx(flops / calibration().gemm_flops_per_second)


def test_a_measurement_applies_to_the_same_optimizer_only() -> None:
    keys = {shape_key(config(**more)) for more in ({}, {"optimizer": "muon"}, {"average_decay": 0.9})}
    assert len(keys) == 3
    assert shape_key(config(average_decay=0.9)) == shape_key(config(average_decay=0.99, schedule="wsd"))


def test_without_calibration_and_runs_the_figures_are_missing_and_a_note_gives_the_reason() -> None:
    found = on(Candidate(CPU_MACHINE, None, 8_000_000_000))
    assert (found.memory_bytes, found.duration_seconds, found.fits, found.basis) == (None, None, None, "")
    assert found.notes == ["This machine has not been calibrated yet; its worker does so while it is idle."]
    prediction = predict_training(config(), CORPUS, [])
    assert prediction.machines == []
    assert prediction.parameters == parameters(config().model)
    assert "No running worker is known, so memory and duration are unknown." in prediction.notes


def test_earlier_runs_of_the_same_shape_replace_the_calibration() -> None:
    given = config()
    runs = [
        run(given, 100.0, 700),
        run(given, 300.0, 900),
        run(given, 200.0, 800),
        run(given, 1.0, 10, machine="another"),
        run(given, 1.0, 10, shape="another"),
    ]
    found = on(Candidate(CPU_MACHINE, calibration(), 8_000_000_000, runs), given)
    assert (found.tokens_per_second, found.memory_bytes) == (200.0, 900)
    assert found.phases["training"] == pytest.approx(2.0)  # 400 tokens at 200 tokens/s
    assert found.basis == "3 earlier runs of the same shape on this kind of machine"
    alone = on(Candidate(CPU_MACHINE, None, None, runs), given)
    assert alone.phases == {"training": 2.0, "other": 8.0}  # 12 s, of which the steps took 4 s
    assert alone.duration_seconds == 10.0


def test_an_earlier_run_without_steps_predicts_nothing() -> None:
    given = config()
    found = on(Candidate(CPU_MACHINE, calibration(), None, [run(given, 1.0, 10, steps=0, tokens=0)]), given)
    assert found == on(Candidate(CPU_MACHINE, calibration()), given)


def test_a_time_limit_bounds_steps_and_validations() -> None:
    found = on(Candidate(CPU_MACHINE, calibration()), config(max_seconds=0.01))
    assert found.phases["training"] + found.phases["validation"] == pytest.approx(0.01, abs=2e-3)


def test_a_model_that_does_not_fit_is_a_warning() -> None:
    fits = on(Candidate(CPU_MACHINE, calibration(), 8_000_000_000))
    assert (fits.fits, fits.warnings) == (True, [])
    large = on(Candidate(CPU_MACHINE, calibration(), 50_000_000))
    assert large.fits is False
    assert "but the machine has 0.1 GB" in large.warnings[0]
    batch = config(micro_batch_size=1 << 17, effective_batch_size=1 << 17)
    gpu = on(Candidate(GPU_MACHINE, calibration(GPU_MACHINE), 8_000_000_000), batch)
    assert (gpu.device, gpu.fits, gpu.memory_limit_bytes) == ("cuda", False, 4_000_000_000)
    assert "but the GPU has 4.0 GB" in gpu.warnings[0]


def test_a_device_or_precision_that_was_not_measured_gives_no_figures() -> None:
    other = on(Candidate(CPU_MACHINE, calibration()), config(precision="bf16"))
    assert (other.memory_bytes, other.duration_seconds) == (None, None)
    assert other.notes == ["The calibration of this machine is in float32, not in bf16."]
    missing = on(Candidate(CPU_MACHINE, calibration()), config(device="cuda"))
    assert missing.warnings == ["The job asks for the device cuda, but this machine has no GPU."]
    cpu = on(Candidate(GPU_MACHINE, calibration(GPU_MACHINE)), config(device="cpu"))
    assert cpu.notes == ["The calibration of this machine is of its GPU, but the job asks for the CPU."]


def test_fewer_threads_make_the_training_slower() -> None:
    both, one = (on(Candidate(CPU_MACHINE, calibration()), config(threads=n)) for n in (None, 1))
    assert both.tokens_per_second and one.tokens_per_second
    assert one.tokens_per_second == pytest.approx(both.tokens_per_second / 2)


def test_the_shape_ignores_what_does_not_change_speed_or_memory() -> None:
    assert shape_key(config()) == shape_key(config(learning_rate=0.5, max_steps=3))
    assert shape_key(config()) != shape_key(config(micro_batch_size=2))


def test_the_lines_for_the_command_line() -> None:
    lines = describe_prediction(predict_training(config(), CORPUS, [Candidate(CPU_MACHINE, calibration(), 10**9)]))
    assert lines[0] == f"{parameters(config().model):,} parameters, 10 steps, 400 tokens"
    assert lines[1].startswith("Made-up CPU, 2 cores: about 0.1")
    assert "of 1.00 GB memory, about 5 s," in lines[1]
    assert lines[1].endswith("(calibration of this machine on 2026-01-02)")
