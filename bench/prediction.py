"""Compare the predicted duration and memory of three trainings with what they need.

Each configuration is trained in a trainer process of its own (`python -m services.trainer --local`): the default model
for a few steps, a small model for many steps, and a model of middle size with a long context. Each is trained three
times, and the machine is calibrated before and after each training. The medians of the predictions and of the
measurements count, because the speed of a machine that is shared with others changes within minutes. No earlier run is
used. The ratio is the smaller of prediction and measurement divided by the larger one.
"""

from __future__ import annotations

import json
import statistics
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
from common.prediction.plan import CorpusSize

WITHIN = 0.8
"""Smallest allowed ratio: it is reached by a prediction that is 25 % too high or 20 % too low."""
ROUNDS = 3
"""Number of trainings of each case, each between two calibrations."""
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
        calibrations = [_calibrate(folder)]
        for name, values in CASES.items():
            steps = values["training"]["max_steps"]
            training = {**values["training"], "max_steps": steps // 2 if quick else steps}
            config = load_lm_config(None, {**values, "data": _DATA, "training": training})
            first = calibrations[0]
            corpus = find_corpus_size(
                config.data, folder, bytes_per_token=first.bytes_per_token, builtin_bytes=first.builtin_bytes
            )
            calibrations, measured = calibrations[-1:], []
            for _ in range(1 if quick else ROUNDS):
                measured.append(_train(name, config, folder))
                calibrations.append(_calibrate(folder))
            predicted = [_predict(config, corpus, calibration) for calibration in calibrations]
            print(f"{name}: predicted {predicted}, measured {measured}", file=sys.stderr)
            seconds, size = (statistics.median(values) for values in zip(*predicted, strict=True))
            taken = statistics.median(found["seconds"] for found in measured)
            memory = statistics.median(found["memory_bytes"] for found in measured)
            rows.append(_row(f"{name}: duration", "s", seconds, taken))
            rows.append(_row(f"{name}: peak memory", "MB", size / 1e6, memory / 1e6))
    return rows


def _calibrate(folder: Path) -> Calibration:
    subprocess.run([sys.executable, "-m", "services.trainer", "--calibrate", str(folder)], check=True)
    calibration = read_calibration(folder, this_machine())
    assert calibration is not None, "the calibration was stored by the child process"
    return calibration


def _predict(config: LMConfig, corpus: CorpusSize | None, calibration: Calibration) -> tuple[float, int]:
    """Return the predicted duration in seconds and the predicted peak memory in bytes."""
    candidate = Candidate(calibration.machine, calibration, memory_limit())
    (predicted,) = predict_training(config, corpus, [candidate]).machines
    print(f"{predicted.phases}, {predicted.tokens_per_second:.0f} tokens/s", file=sys.stderr)
    assert predicted.duration_seconds is not None and predicted.memory_bytes is not None
    return predicted.duration_seconds, predicted.memory_bytes


def _train(name: str, config: LMConfig, folder: Path) -> dict[str, Any]:
    """Train, and return the content of `measurement.json`."""
    out = Path(tempfile.mkdtemp(prefix=name.replace(" ", "-"), dir=folder))
    path = folder / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    arguments = ["--local", "lm", "--config", str(path), "--out", str(out), "--data-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "services.trainer", *arguments], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((out / "measurement.json").read_text())
    return found


def _row(name: str, unit: str, predicted: float, measured: float) -> Row:
    if predicted <= measured:
        return Row(f"{name}, predicted", unit, predicted, measured, "measured", WITHIN, "at least")
    return Row(f"{name}, measured", unit, measured, predicted, "predicted", WITHIN, "at least")


if __name__ == "__main__":
    main(run, __doc__)
