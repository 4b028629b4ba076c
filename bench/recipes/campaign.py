"""Decides which runs are missing: first the tuning of an arm, then its three seeds with the best setting.

The speed of an arm that is limited by time is measured before its tuning, in short runs that alternate with those of
the other arms. Its budget is the number of steps that it takes in the time at this speed, so that what else the machine
does during the long runs changes no result.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.recipes.arms import ARMS, BATCHES, GPT2, RATE_FACTORS, SEEDS, TUNING_SEED, Arm
from common.config import merge

Stage = Literal["speed", "tuning", "final"]
Results = Mapping[str, Mapping[str, Any]]
"""{key of a run: its result}."""
GPT2_ENTRIES = 50257
NEVER = 10**9
"""Steps between two validations in a run that measures the speed."""


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
    """Seconds of a run of arms that are limited by time."""
    tuning_share: float = 1.0
    """Share of the budget that a run of the tuning gets."""
    threads: int = 2
    """CPU threads of a run that measures the speed."""
    run_threads: int = 1
    """CPU threads of the other runs, whose duration does not count."""
    curve_tokens: int = 32_768
    """Tokens at the beginning of the validation text that are evaluated during a run."""
    every_tokens: int = 100_000
    """Number of training tokens between two validations during a run."""
    rate_factors: tuple[float, ...] = RATE_FACTORS
    batches: tuple[int, ...] = BATCHES
    seeds: tuple[int, ...] = SEEDS
    speed_seconds: float = 15.0
    """Seconds of a run that measures the speed."""
    speed_rounds: int = 3


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


def make_run(
    setup: Setup, arm: Arm, stage: Stage, rate: float, batch: int, seed: int, speed: float | None = None
) -> Run:
    """Return the run of an arm with these hyperparameters.

    `speed`, in tokens per second, gives the number of steps of an arm that is limited by time.
    """
    share = arm.share * (setup.tuning_share if stage == "tuning" else 1.0)
    micro = next(size for size in range(min(8, batch), 0, -1) if batch % size == 0)
    own = arm.vocabulary != GPT2 and setup.entries > 0
    tokens_per_step = batch * setup.context
    training: dict[str, Any] = {
        "learning_rate": rate,
        "effective_batch_size": batch,
        "micro_batch_size": micro,
        "seed": seed,
        "threads": setup.threads if stage == "speed" else setup.run_threads,
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
    if stage == "speed":
        training |= {"max_seconds": setup.speed_seconds, "log_every_steps": 1}
        shared["evaluation"] = {"every_steps": NEVER, "max_batches": 1}
    else:
        tokens = setup.tokens if arm.unit == "tokens" else (speed or 0.0) * setup.seconds
        training["max_steps"] = max(1, round(tokens * share / tokens_per_step))
    request = {"peer": arm.peer, "texts": setup.texts, "config": merge(arm.settings, shared)}
    if stage == "speed":
        request["only_speed"] = True
    return Run(arm.name, stage, rate, batch, seed, request)


def speed_runs(setup: Setup, arm: Arm) -> list[Run]:
    """Return the runs that measure the speed of an arm, every batch in every round; none for a budget of tokens.

    The number of the round is the seed.
    """
    if arm.unit == "tokens":
        return []
    rounds = range(1, setup.speed_rounds + 1)
    return [make_run(setup, arm, "speed", arm.rate, batch, number) for number in rounds for batch in setup.batches]


def speed(setup: Setup, arm: Arm, batch: int, results: Results) -> float | None:
    """Return the median tokens per second of an arm that is limited by time; None while a measurement is missing."""
    runs = [run for run in speed_runs(setup, arm) if run.batch == batch]
    if not runs or any(run.key not in results for run in runs):
        return None
    return statistics.median(float(results[run.key]["tokens_per_second"]) for run in runs)


def tuning_runs(setup: Setup, arm: Arm, results: Results | None = None) -> list[Run]:
    """Return the runs that tune an arm: every learning rate with every batch, on one seed.

    Returns none while the speed of an arm that is limited by time is not measured.
    """
    tuned = ARMS[arm.tuned_as] if arm.tuned_as else arm
    speeds = {batch: speed(setup, tuned, batch, results or {}) for batch in setup.batches}
    if tuned.unit == "seconds" and None in speeds.values():
        return []
    return [
        make_run(setup, tuned, "tuning", round(tuned.rate * factor, 10), batch, TUNING_SEED, speeds[batch])
        for batch in setup.batches
        for factor in setup.rate_factors
    ]


def final_runs(setup: Setup, arm: Arm, results: Results) -> list[Run] | None:
    """Return the runs with the best setting of the tuning; None while runs of tuning or speed are missing."""
    best = best_tuned(setup, arm, results)
    if best is None:
        return None
    measured = speed(setup, arm, best.batch, results)
    if measured is None and arm.unit == "seconds":
        return None
    return [make_run(setup, arm, "final", best.rate, best.batch, seed, measured) for seed in setup.seeds]


def best_tuned(setup: Setup, arm: Arm, results: Results) -> Run | None:
    """Return the run of the tuning with the lowest score; None while one is missing."""
    tuning = tuning_runs(setup, arm, results)
    if not tuning or any(run.key not in results for run in tuning):
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


def missing(setup: Setup, arms: Sequence[Arm], results: Results, *, until: Stage = "final") -> Iterator[Run]:
    """Yield the runs up to this stage that can be done now and have no result, each once.

    Those that measure the speed come first, round by round, so that the arms alternate.
    """
    seen: set[str] = set()
    runs = sorted((run for arm in arms for run in speed_runs(setup, arm)), key=lambda run: run.seed)
    for arm in arms:
        if until != "speed":
            runs += tuning_runs(setup, arm, results)
        if until == "final":
            runs += final_runs(setup, arm, results) or []
    for run in runs:
        if run.key not in results and run.key not in seen:
            seen.add(run.key)
            yield run


def describe(setup: Setup) -> dict[str, Any]:
    """Return the setup as plain values."""
    return asdict(setup)
