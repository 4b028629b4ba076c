"""Decides which runs are missing: first the tuning of an arm, then its three seeds with the best setting."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.recipes.arms import ARMS, BATCHES, GPT2, RATE_FACTORS, SEEDS, TUNING_SEED, Arm
from common.config import merge

Stage = Literal["tuning", "final"]
Results = Mapping[str, Mapping[str, Any]]
"""{key of a run: its result}."""
GPT2_ENTRIES = 50257


@dataclass(frozen=True)
class Texts:
    """The two text files and what identifies their content."""

    train: Path
    valid: Path

    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify the content of both files."""
        whole = hashlib.sha256()
        for path in (self.train, self.valid):
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()[:16]


@dataclass(frozen=True)
class Setup:
    """What all arms of a measurement share."""

    texts: str
    """Digest of the texts."""
    depth: int = 3
    context: int = 256
    entries: int = 4096
    """Entries of the vocabulary that is trained on the text; 0 means GPT-2's vocabulary for all arms."""
    tokens: int = 2_000_000
    """Tokens of a run of arms that are limited by tokens."""
    seconds: float = 600.0
    """Seconds of a run of arms that are limited by wall time."""
    tuning_share: float = 1.0
    """Share of the budget that a run of the tuning gets."""
    threads: int = 2
    curve_tokens: int = 32_768
    """Tokens at the beginning of the validation text that are evaluated during a run."""
    every_tokens: int = 100_000
    """Number of training tokens between two validations during a run."""
    rate_factors: tuple[float, ...] = RATE_FACTORS
    batches: tuple[int, ...] = BATCHES
    seeds: tuple[int, ...] = SEEDS


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    stage: Stage
    rate: float
    batch: int
    seed: int
    request: Mapping[str, Any]
    """Everything that determines the result, for `bench.recipes.run_one`."""

    @property
    def key(self) -> str:
        """Return 16 hexadecimal digits that identify the request."""
        return hashlib.sha256(json.dumps(self.request, sort_keys=True).encode()).hexdigest()[:16]


def make_run(setup: Setup, arm: Arm, stage: Stage, rate: float, batch: int, seed: int) -> Run:
    """Return the run of an arm with these hyperparameters."""
    share = arm.share * (setup.tuning_share if stage == "tuning" else 1.0)
    micro = next(size for size in range(min(8, batch), 0, -1) if batch % size == 0)
    own = arm.vocabulary != GPT2 and setup.entries > 0
    tokens_per_step = batch * setup.context
    training: dict[str, Any] = {
        "learning_rate": rate,
        "effective_batch_size": batch,
        "micro_batch_size": micro,
        "seed": seed,
        "threads": setup.threads,
        # Fixed, because "auto" chooses by a measurement of speed, and the request must determine the result.
        "precision": "float32",
        "compile": "off",
    }
    shared = {
        "model": {
            "depth": setup.depth,
            "context_length": setup.context,
            "vocab_size": setup.entries if own else GPT2_ENTRIES,
        },
        "data": {"tokenizer": f"train:{setup.entries}" if own else GPT2},
        "training": training,
        "evaluation": {
            "every_steps": max(1, round(setup.every_tokens / tokens_per_step)),
            "max_batches": max(1, setup.curve_tokens // (16 * setup.context)),
        },
    }
    if arm.unit == "tokens":
        training["max_steps"] = max(1, round(setup.tokens * share / tokens_per_step))
    else:
        training["max_seconds"] = setup.seconds * share
    request = {"peer": arm.peer, "texts": setup.texts, "config": merge(arm.settings, shared)}
    return Run(arm.name, stage, rate, batch, seed, request)


def tuning_runs(setup: Setup, arm: Arm) -> list[Run]:
    """Return the runs that tune an arm: every learning rate with every batch, on one seed."""
    tuned = ARMS[arm.tuned_as] if arm.tuned_as else arm
    return [
        make_run(setup, tuned, "tuning", round(tuned.rate * factor, 10), batch, TUNING_SEED)
        for batch in setup.batches
        for factor in setup.rate_factors
    ]


def final_runs(setup: Setup, arm: Arm, results: Results) -> list[Run] | None:
    """Return the runs with the best setting of the tuning; None while runs of the tuning are missing."""
    best = best_tuned(setup, arm, results)
    return (
        None if best is None else [make_run(setup, arm, "final", best.rate, best.batch, seed) for seed in setup.seeds]
    )


def best_tuned(setup: Setup, arm: Arm, results: Results) -> Run | None:
    """Return the run of the tuning with the lowest score; None while one is missing."""
    tuning = tuning_runs(setup, arm)
    if any(run.key not in results for run in tuning):
        return None
    return min(tuning, key=lambda run: score(arm, results[run.key], "tuning"))


def score(arm: Arm, result: Mapping[str, Any], stage: Stage = "final") -> float:
    """Return the bits per byte by which runs of an arm are compared; infinity for a run that diverged.

    It is that of the last weights for a budget of tokens, and that of the best checkpoint for a budget of time, because
    a training with many epochs ends at its best checkpoint. The tuning reads the first half of the validation text, and
    the final runs the second half.
    """
    if result.get("diverged"):
        return math.inf
    figure = "tuning_bits_per_byte" if stage == "tuning" else "bits_per_byte"
    return float(result["best" if arm.unit == "seconds" else "final"][figure])


def missing(setup: Setup, arms: Sequence[Arm], results: Results, *, only_tuning: bool = False) -> Iterator[Run]:
    """Yield the runs that can be done now and have no result, each once."""
    seen: set[str] = set()
    for arm in arms:
        runs = tuning_runs(setup, arm)
        if not only_tuning:
            runs += final_runs(setup, arm, results) or []
        for run in runs:
            if run.key not in results and run.key not in seen:
                seen.add(run.key)
                yield run


def describe(setup: Setup) -> dict[str, Any]:
    """Return the setup as plain values."""
    return asdict(setup)
