"""The measurement of what a training needs, and the size of saved tensors that a calibration measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import TrainingConfig, load_lm_config
from common.metrics import names
from common.prediction.calibration import write_calibration
from common.prediction.estimate import shape_key
from common.prediction.machine import this_machine
from common.prediction.model_size import flops_per_token
from common.training import calibrate
from common.training.device import prepare_compute
from common.training.hooks import NullHooks
from common.training.peak_memory import anonymous_bytes, peak_anonymous_bytes
from common.training.pretrain import pretrain
from common.training.run_meter import RunMeter
from common.training.sample_history import SampleRecorder
from tests.unit.common.prediction.calibrations import calibration
from tidal_client.wire.prediction import TrainingMeasurement

STATUS = "VmHWM:\t  1000 kB\nRssAnon:\t   300 kB\nRssFile:\t   100 kB\nRssShmem:\t     50 kB\n"


class Recording(NullHooks):
    """Hooks that keep metrics and events."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []
        self.events: dict[str, dict[str, Any]] = {}

    def report_metrics(self, kind: str, step: int, values: Any) -> None:
        self.values.append(dict(values))

    def event(self, name: str, **details: Any) -> None:
        self.events[name] = details


def test_pages_of_files_are_no_anonymous_memory() -> None:
    assert peak_anonymous_bytes(STATUS) == (1000 - 100 - 50) * 1024
    assert anonymous_bytes(STATUS) == 300 * 1024
    assert anonymous_bytes("Name:\tended\n") == 0


def test_a_training_reports_what_it_has_needed_and_its_share_of_the_gemm_rate(tmp_path: Path) -> None:
    config = load_lm_config(
        None,
        {
            "model": {"d_model": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16, "context_length": 16},
            "data": {"source": "builtin:stories", "max_documents": 20},
            "training": {"micro_batch_size": 2, "effective_batch_size": 2, "max_steps": 3, "threads": 1},
            "evaluation": {"batch_size": 2, "max_batches": 1, "prompts": ["a"], "sample_tokens": 1},
        },
    )
    write_calibration(tmp_path, calibration(this_machine().model_copy(update={"device": "cpu"})))
    hooks = Recording()
    pretrain(config, tmp_path / "run", hooks, data_dir=tmp_path)
    measured = TrainingMeasurement.model_validate(hooks.events["measured"])
    assert (measured.steps, measured.tokens, measured.resumed) == (3, 3 * 2 * 16, False)
    assert (measured.machine, measured.shape) == (this_machine().key, shape_key(config))
    assert (measured.device, measured.precision, measured.compiled) == ("cpu", "float32", False)
    assert 0 < measured.training_seconds < measured.seconds
    assert measured.memory_bytes > 16 * 1_600_000  # weights, gradients and moments of 1.6 M parameters
    assert json.loads((tmp_path / "run" / "measurement.json").read_text()) == hooks.events["measured"]
    steps = [values for values in hooks.values if names.TOKENS_PER_SECOND in values]
    assert len(steps) == 3
    for values in steps:
        rate = flops_per_token(config.model, 16) * values[names.TOKENS_PER_SECOND]
        assert values[names.GEMM_SHARE] == pytest.approx(rate / 1e11)


def test_the_time_of_samples_is_not_that_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_lm_config(
        None,
        {
            "model": {"d_model": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16, "context_length": 16},
            "data": {"source": "builtin:stories", "max_documents": 20},
            "training": {"micro_batch_size": 2, "effective_batch_size": 2, "max_steps": 3, "threads": 1},
            "evaluation": {"batch_size": 2, "max_batches": 1, "prompts": ["a"], "samples_every_steps": 1},
        },
    )
    clocks = []

    def watch(self: SampleRecorder, model: Any, step: int, *, keep_going: Any) -> bool:
        clocks.append(meters[0]._running_since)
        self.add(step, [])
        return True

    meters: list[RunMeter] = []
    begin = RunMeter.start

    def start(self: RunMeter) -> None:
        meters.append(self)
        begin(self)

    monkeypatch.setattr(SampleRecorder, "generate", watch)
    monkeypatch.setattr(RunMeter, "start", start)
    pretrain(config, tmp_path / "run", NullHooks(), data_dir=tmp_path)
    assert clocks == [None, None]  # after the steps 1 and 2


def test_the_saved_tensors_of_another_model_are_predicted_exactly() -> None:
    compute = prepare_compute(TrainingConfig(device="cpu", threads=1))
    bench = calibrate._Bench(compute)
    cost = calibrate._activations(bench)
    model = bench.model(d_model=48, num_heads=3, ffn_dim=80, num_layers=3)
    tokens, length = 4 * 40, 40
    layer = 48 * cost["per_width"] + 80 * cost["per_ffn"] + 3 * length * cost["per_attention"]
    predicted = tokens * (3 * layer + 48 * cost["embedding"])
    assert calibrate._saved_bytes(bench, model, length) == pytest.approx(predicted, rel=0.05)
    assert torch.get_num_threads() == 1
