"""Compare the predicted duration and memory of three trainings with what they need.

The machine is calibrated first. Each configuration is predicted from this calibration, then trained in a trainer
process of its own (`python -m services.trainer --local`): the default model for a few steps, a small model for many
steps, and a model of middle size with a long context. The ratio is the smaller of prediction and measurement divided by
the larger one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import Row, main
from common.config import LMConfig, dump_yaml, load_lm_config
from common.prediction.calibration import Calibration, read_calibration
from common.prediction.corpus_size import find_corpus_size
from common.prediction.estimate import Candidate, predict_training
from common.prediction.machine import memory_limit, this_machine

WITHIN = 0.8
"""Smallest allowed ratio: 25 % too much or too little."""
_DATA = {"source": "builtin:stories"}
CASES: dict[str, dict[str, Any]] = {
    "default model, micro-batch 8": {
        "training": {"micro_batch_size": 8, "effective_batch_size": 16, "max_steps": 8},
        "evaluation": {"batch_size": 8, "max_batches": 4},
    },
    "width 64, 2 layers": {
        "model": {"d_model": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 256, "context_length": 128},
        "training": {"micro_batch_size": 8, "effective_batch_size": 8, "max_steps": 80},
        "evaluation": {"batch_size": 16, "max_batches": 4, "every_steps": 40},
    },
    "width 128, 4 layers, context 1,024": {
        "model": {"d_model": 128, "num_layers": 4, "num_heads": 4, "ffn_dim": 512, "context_length": 1024},
        "training": {"micro_batch_size": 2, "effective_batch_size": 4, "max_steps": 15},
        "evaluation": {"batch_size": 2, "max_batches": 4},
    },
}


def run(quick: bool) -> list[Row]:
    """Predict and train each case; with `quick`, only half of the steps."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-m", "services.trainer", "--calibrate", str(folder)], check=True)
        calibration = read_calibration(folder, this_machine())
        assert calibration is not None, "the calibration was stored by the child process"
        print(calibration.model_dump_json(indent=1), file=sys.stderr)
        for name, values in CASES.items():
            steps = values["training"]["max_steps"]
            training = {**values["training"], "max_steps": steps // 2 if quick else steps}
            config = load_lm_config(None, {**values, "data": _DATA, "training": training})
            rows += _compare(name, config, calibration, folder)
    return rows


def _compare(name: str, config: LMConfig, calibration: Calibration, folder: Path) -> list[Row]:
    corpus = find_corpus_size(
        config.data, folder, bytes_per_token=calibration.bytes_per_token, builtin_bytes=calibration.builtin_bytes
    )
    candidate = Candidate(calibration.machine, calibration, memory_limit())
    (predicted,) = predict_training(config, corpus, [candidate]).machines
    out = folder / name.replace(" ", "-")
    path = folder / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    arguments = ["--local", "lm", "--config", str(path), "--out", str(out), "--data-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "services.trainer", *arguments], check=True, stdout=subprocess.DEVNULL)
    measured = json.loads((out / "measurement.json").read_text())
    print(f"{name}: {predicted.phases}, {predicted.tokens_per_second} tokens/s; {measured}", file=sys.stderr)
    assert predicted.duration_seconds is not None and predicted.memory_bytes is not None
    return [
        _row(f"{name}: duration", "s", predicted.duration_seconds, measured["seconds"]),
        _row(f"{name}: peak memory", "MB", predicted.memory_bytes / 1e6, measured["memory_bytes"] / 1e6),
    ]


def _row(name: str, unit: str, predicted: float, measured: float) -> Row:
    if predicted <= measured:
        return Row(f"{name}, predicted", unit, predicted, measured, "measured", WITHIN, "at least")
    return Row(f"{name}, measured", unit, measured, predicted, "predicted", WITHIN, "at least")


if __name__ == "__main__":
    main(run, __doc__)
