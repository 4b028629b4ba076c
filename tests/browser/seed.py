"""Creates finished experiments without training: writes database rows and archives like those of real ones."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from common.db import Experiment

COMPONENTS = ("perplexity", "diversity", "sampling", "repetition", "coherence")


def add_experiment(session: Session, folder: Path, name: str, kind: str, points: int, **options: Any) -> str:
    """Store an experiment with `points` metric points, and for a controller also an ablation. Return its id."""
    number = options.get("number", 0)
    experiment_id = f"20260901-1200{number % 60:02d}-commit_ab12cd3-config_{number:010x}"
    tags = options.get("tags", ["seeded"])
    session.add(Experiment(id=experiment_id, type=kind, name=name, tags=tags, imported=True, config={}))
    home = folder / experiment_id
    (home / "metrics").mkdir(parents=True)
    stream, make = ("metrics", language_model) if kind == "lm" else ("rl-metrics", controller)
    numbers = random.Random(number)
    with (home / "metrics" / f"{stream}-1-0.jsonl").open("w") as file:
        for i in range(points):
            step = i + 1 if kind == "lm" else 4096 * (i + 1)
            values = make(i, points, numbers)
            file.write(
                json.dumps({"step": step, "time": "2026-09-01T12:00:00Z", "attempt": 1, "values": values}) + "\n"
            )
    if kind == "rl":
        (home / "ablation_results.json").write_text(json.dumps(ablation(numbers)))
        (home / "rl_config.yaml").write_text(f"ppo: {{learning_rate: 0.0003, total_steps: {4096 * points}}}\n")
    else:
        (home / "config.yaml").write_text(f"training: {{learning_rate: 0.00{1 + number % 4}, max_steps: {points}}}\n")
        (home / "evaluation_results").mkdir()
        rows = [{"step": step, "samples": sample_texts(step)} for step in range(500, 2000, 500)]
        (home / "evaluation_results/samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return experiment_id


def sample_texts(step: int) -> list[dict[str, Any]]:
    """Return the texts that a training generated after `step`."""
    endings = {"Once upon a time": f", after {step} steps, a cat", "The little cat": " <b>sat</b> on the mat."}
    return [{"prompt": prompt, "generated": text, "tokens": 5} for prompt, text in endings.items()]


def language_model(i: int, points: int, numbers: random.Random) -> dict[str, float]:
    """Return the metrics of point `i` of a pretraining that has `points` points."""
    share = i / points
    loss = 1.7 + 9 * math.exp(-9 * share) + numbers.gauss(0, 0.12)
    values = {
        "Losses/Total": loss,
        "Learning Rate": 1e-3 * min(1, share * 10) * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-6,
        "Tokens/Second": 41_000 + numbers.gauss(0, 900),
        "Gradient Norm": 0.6 + abs(numbers.gauss(0, 0.25)) + math.exp(-12 * share),
    }
    if i % max(1, points // 12) == 0:
        values["Losses/Validation"] = 1.78 + 9 * math.exp(-9 * share)
        values["Perplexity/Validation"] = math.exp(values["Losses/Validation"])
        values["Bits per Byte/Validation"] = values["Losses/Validation"] / math.log(2) / 4.0
    return values


def controller(i: int, points: int, numbers: random.Random) -> dict[str, float]:
    """Return the metrics of iteration `i` of a controller training that has `points` iterations."""
    share = i / points
    values = {
        "episode_reward": -1 + 6 * (1 - math.exp(-4 * share)) + numbers.gauss(0, 0.15),
        "step_reward": -0.05 + 0.18 * (1 - math.exp(-4 * share)) + numbers.gauss(0, 0.01),
        "policy_loss": numbers.gauss(-0.01, 0.004),
        "value_loss": 0.4 * math.exp(-3 * share) + abs(numbers.gauss(0, 0.02)),
        "entropy": -0.1 - 0.5 * share + numbers.gauss(0, 0.02),
        "modulation_mean": 0.5 - 0.25 * share,
        "modulation_std": 0.22 - 0.1 * share,
        "explained_variance": 0.85 * (1 - math.exp(-5 * share)) + numbers.gauss(0, 0.03),
        "lagrange_multiplier": 1.0 * math.exp(-2 * share),
        "cost": 0.08 + numbers.gauss(0, 0.01),
    }
    return {**values, **{f"reward/{name}": 0.2 * n + 0.1 * share for n, name in enumerate(COMPONENTS)}}


def ablation(numbers: random.Random) -> dict[str, Any]:
    """Return an ablation result in the form in which `common.rl.comparison` writes it."""

    def interval(mean: float, half: float = 0.008) -> dict[str, float]:
        return {"mean": mean, "std": 4 * half, "ci_low": mean - half, "ci_high": mean + half}

    def table(total: float) -> dict[str, Any]:
        components = {name: interval(numbers.uniform(0, 0.6)) for name in COMPONENTS}
        return {"episodes": 200, "total": interval(total), "components": components, "modulation": interval(0.4)}

    return {
        "policies": {
            "learned": table(0.141),
            "best_constant": table(0.139),
            "random": table(0.072),
            "fixed": table(0.118),
        },
        "paired": {
            "learned_minus_best_constant": {
                **table(0.002),
                "verdict": "The learned controller did not beat the best constant m = 0.35 (+0.0020).",
            },
            "learned_minus_random": {**table(0.069), "verdict": "The learned controller beat random (+0.0690)."},
            "learned_minus_fixed": {**table(0.023), "verdict": "The learned controller beat fixed (+0.0230)."},
        },
        "best_constant": {"modulation": 0.35, "grid": [{"modulation": i / 20, "reward": 0.1} for i in range(21)]},
        "behaviour": {
            "mean": 0.36,
            "std_within": 0.0001,
            "std_between": 0.002,
            "entropy_share": 0.1,
            "constant": True,
            "verdict": "The controller behaves like the constant m = 0.36: its m deviates by 0.0001 within a text.",
        },
        "conclusion": "The learned controller did not beat the best constant m = 0.35 (+0.0020). The learned "
        "controller beat random (+0.0690). The learned controller beat fixed (+0.0230). The controller behaves like "
        "the constant m = 0.36: its m deviates by 0.0001 within a text.",
        "conditions": {"prompts": 200, "development_prompts": 100, "max_length": 50, "seed": 1234},
    }
