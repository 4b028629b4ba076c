"""The process of one run: reads a request from standard input, trains, and writes its result to standard output.

The request is {"peer", "config", "train", "valid", "data_dir"}, and "only_speed" if only the speed is asked for. Lines
for people go to standard error.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.recipes.measures import BATCH, Curve, measure
from bench.recipes.peer import train_peer
from common.artifacts.best import read_best
from common.checkpoint import load_model
from common.config import LMConfig, load_lm_config
from common.data import Corpus
from common.errors import DivergedError
from common.metrics import names
from common.training.hooks import NullHooks
from common.training.loading import load_corpus
from common.training.pretrain import pretrain


class Recorder(NullHooks):
    """Hooks that collect the validations of a run, with tokens and seconds since the beginning of the training."""

    def __init__(self) -> None:
        self.curve = Curve()
        self._reports: list[tuple[float, int]] = []
        self._tokens = 0
        self._started: float | None = None

    def phase(self, name: str) -> None:
        if name == "training" and self._started is None:
            self._started = time.monotonic()

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self._tokens = int(values.get(names.TOKENS_SEEN, self._tokens))
        if names.TOKENS_SEEN in values:
            self._reports.append((time.monotonic(), self._tokens))
        if names.VALIDATION_LOSS in values and step > 0:
            seconds = time.monotonic() - (self._started or time.monotonic())
            self.curve.add(
                self._tokens, seconds, values[names.VALIDATION_LOSS], values.get(names.BITS_PER_BYTE, float("nan"))
            )

    @property
    def tokens_per_second(self) -> float:
        """Return the speed between the first report and the last one; if there is only one, that until this report."""
        (began, before), (ended, after) = self._reports[0], self._reports[-1]
        if len(self._reports) == 1 and self._started is not None:
            began, before = self._started, 0
        return (after - before) / (ended - began)


def configuration(request: Mapping[str, Any]) -> LMConfig:
    """Return the configuration of a run. Early stop, checkpoints by time and sample texts are off."""
    fixed = {
        "data": {"source": request["train"], "validation_source": request["valid"]},
        "training": {"epochs": 100_000, "patience": 1_000_000, "device": "cpu", "tensorboard": False},
        "evaluation": {"batch_size": BATCH, "prompts": []},
        "checkpoint": {"every_seconds": 1e9, "keep_last": 1},
    }
    config = load_lm_config(None, request["config"])
    return load_lm_config(None, {**_plain(config), **_merged(_plain(config), fixed)})


def _plain(config: LMConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _merged(values: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {section: {**values[section], **fields} for section, fields in changes.items()}


def train_ours(config: LMConfig, corpus: Corpus, data_dir: Path, *, only_speed: bool = False) -> dict[str, Any]:
    """Train through `pretrain`, and return the result of the run."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=data_dir))
    hooks = Recorder()
    try:
        pretrain(config, folder, hooks, data_dir=data_dir, resume=False)
        speed = {
            "tokens_per_second": hooks.tokens_per_second,
            "bytes_per_second": hooks.tokens_per_second * corpus.train_bytes_per_token,
        }
        if only_speed:
            return speed
        written = json.loads((folder / "evaluation_results/evaluation_results.json").read_text())
        final = folder / written["model"]
        found = {"final": final, "best": final}
        best = read_best(folder / "checkpoints")
        if best is not None:
            found["best"] = folder / best.name
        measured = {name: _evaluate(path, corpus) for name, path in found.items()}
        return {
            "curve": hooks.curve.points,
            "final": measured["final"],
            "best": min(measured.values(), key=lambda values: values["tuning_bits_per_byte"]),
            "tokens": written["tokens_seen"],
            "steps": written["steps"],
            "seconds": written["training_seconds"],
            "parameters": load_model(final).num_parameters,
            **speed,
        }
    except DivergedError as error:
        return {"diverged": True, "reason": error.message}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _evaluate(path: Path, corpus: Corpus) -> dict[str, float]:
    model = load_model(path)
    return measure(model, model, corpus, model.config.context_length)


def main() -> None:
    """Run the request."""
    request = json.load(sys.stdin)
    data_dir = Path(request["data_dir"])
    config = configuration(request)
    corpus = load_corpus(config.data, data_dir, NullHooks())
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    result = (
        train_peer(config, corpus)
        if request["peer"]
        else train_ours(config, corpus, data_dir, only_speed=request.get("only_speed", False))
    )
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
