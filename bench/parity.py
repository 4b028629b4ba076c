"""Compare the numbers of Tidal with those of the original implementation in `tests/data/parity`.

For each group of numbers, such as logits or rewards, the largest difference must be at most 1e-4 (float32 on the CPU).
The last row compares the number of parameters of the default model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.report import Row, main
from common.checkpoint import load_model
from common.config import ModelConfig
from common.controller import build_observation, decoding_parameter_rows, decoding_parameters, load_policy
from common.generation import filtered_probabilities, score, scored_logits
from common.model import TransformerLM
from common.rl import step_reward
from common.rl.schedules import diversity_homeostasis, entropy_homeostasis
from common.rl.statistics import NgramStatistics

PARITY = Path(__file__).resolve().parent.parent / "tests" / "data" / "parity"
BOUND = 1e-4
PARAMETERS = 30_623_057
FORMS = ("lm_small", "lm_small_training_checkpoint", "lm_small_compiled", "lm_small_three_gates")
VOCAB = 331


def run(quick: bool) -> list[Row]:
    """Compare all groups. `quick` has no effect, because the comparison takes only seconds."""
    torch.set_num_threads(1)
    tensors = load_file(PARITY / "reference.safetensors")
    reference = json.loads((PARITY / "reference.json").read_text(encoding="utf-8"))
    edges = json.loads((PARITY / "edge_cases.json").read_text(encoding="utf-8"))
    groups: dict[str, float] = {}
    with torch.no_grad():
        for source in (
            _logits(tensors, reference),
            _decoding(tensors, reference, edges),
            _observations(tensors, reference, edges),
            _policies(tensors),
            _rewards(tensors, {"reference": reference, "edge_cases": edges}),
            _schedules((reference, edges)),
        ):
            for name, difference in source:
                groups[name] = max(groups.get(name, 0.0), difference)
        count = TransformerLM(ModelConfig()).num_parameters
    rows = [
        Row(f"largest difference from the original: {name}", "", value, BOUND, "limit", 1.0, "at most")
        for name, value in groups.items()
    ]
    return [*rows, Row("parameters of the default model", "", count, PARAMETERS, "original", 1.0, "at most")]


def _gap(ours: Any, original: Any) -> float:
    difference = torch.as_tensor(ours, dtype=torch.float64) - torch.as_tensor(original, dtype=torch.float64)
    return float(difference.abs().max())


def _logits(tensors: dict[str, Tensor], reference: dict[str, Any]) -> Iterator[tuple[str, float]]:
    ids, modulation = torch.tensor(reference["input_ids"]), torch.tensor(reference["modulation"])[:, None]
    for form in FORMS:
        model = load_model(PARITY / f"{form}.pth")
        yield f"logits without modulation, {form}", _gap(model(ids), tensors["logits_plain"])
        yield f"logits with modulation, {form}", _gap(model(ids, modulation), tensors["logits_gated"])


def _seen(sequence: list[int]) -> Tensor:
    seen = torch.zeros(1, VOCAB, dtype=torch.bool)
    seen[0, sequence] = True
    return seen


def _decoding(
    tensors: dict[str, Tensor], reference: dict[str, Any], edges: dict[str, Any]
) -> Iterator[tuple[str, float]]:
    for case in reference["decoding_parameters"]:
        found = decoding_parameters(case["modulation"])
        for name in ("temperature", "repetition_penalty", "top_k", "top_p"):
            yield "decoding parameters", _gap(getattr(found, name), case[name])
    for case in reference["filtered"]:
        row = case["row"]
        logits, seen = tensors["logits_plain"][row, -1][None], _seen(reference["input_ids"][row])
        parameters = decoding_parameter_rows(torch.tensor([case["modulation"]]))
        scored = scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature)
        yield "scored logits", _gap(scored[0], tensors[f"scored_logits_{row}"])
        filtered = filtered_probabilities(score(logits, seen, parameters), parameters, max_candidates=100)
        yield "filtered distributions", _gap(filtered[0], tensors[f"filtered_{row}"])
    for case in edges["nucleus"]:
        logits, seen = tensors[f"nucleus_logits_{case['index']}"][None], _seen(case["sequence"])
        parameters = decoding_parameter_rows(torch.tensor([case["modulation"]]))
        filtered = filtered_probabilities(score(logits, seen, parameters), parameters, max_candidates=100)
        yield "filtered distributions", _gap(filtered[0], tensors[f"nucleus_filtered_{case['index']}"])


def _observations(
    tensors: dict[str, Tensor], reference: dict[str, Any], edges: dict[str, Any]
) -> Iterator[tuple[str, float]]:
    for case in reference["observations"]:
        row, count = case["row"], case["tokens"]
        logits, hidden = tensors["logits_plain"][row, count - 1], tensors["hidden_plain"][row, count - 1]
        found = build_observation(
            reference["input_ids"][row][:count],
            logits,
            hidden,
            step=case["step"],
            episode_length=case["episode_length"],
            previous_action=case["previous_action"],
        )
        yield "observations", _gap(found, case["observation"])
    case = edges["observation_long"]
    found = build_observation(
        case["sequence"],
        tensors["observation_long_logits"],
        tensors["observation_long_hidden"],
        step=case["step"],
        episode_length=case["episode_length"],
        previous_action=case["previous_action"],
    )
    yield "observations", _gap(found, case["observation"])


def _policies(tensors: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    for file, prefix in (("policy", "policy"), ("policy_capped", "capped")):
        policy = load_policy(PARITY / f"{file}.pth")
        observations, actions = tensors[f"{prefix}_observations"], tensors[f"{prefix}_actions"]
        output, evaluation = policy(observations), policy.evaluate(observations, actions)
        found = {
            "alpha": output.first,
            "beta": output.second,
            "log_probs": evaluation.log_prob,
            "entropy": evaluation.entropy,
            "values": evaluation.value,
            "cost_values": evaluation.cost_value,
            "deterministic": policy.act(observations, deterministic=True).action,
        }
        for name, value in found.items():
            if f"{prefix}_{name}" in tensors:
                yield "policy outputs", _gap(value, tensors[f"{prefix}_{name}"])


def _rewards(tensors: dict[str, Tensor], files: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, content in files.items():
        counted = NgramStatistics.from_sequences(content["bigram_sequences"], VOCAB)
        for case in content["rewards"]:
            key = f"scored_logits_{case['scored_row']}" if name == "reference" else f"reward_logits_{case['index']}"
            statistics = counted if case.get("with_statistics", True) else None
            found = step_reward(tensors[key], case["token"], case["generated"], case["sampling_entropy"], statistics)
            yield "rewards", _gap(found.total, case["total"])
            for part, value in case["components"].items():
                yield "rewards", _gap(found.components[part], value)


def _schedules(files: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, float]]:
    for content in files:
        coefficient, weight = 0.01, 0.15
        for case in content["entropy_homeostasis"]:
            coefficient = entropy_homeostasis(coefficient, case["entropy"])
            yield "homeostasis", _gap(coefficient, case["coef"])
        for case in content["diversity_homeostasis"]:
            weight = diversity_homeostasis(weight, case["diversity"])
            yield "homeostasis", _gap(weight, case["weight"])


if __name__ == "__main__":
    main(run, __doc__)
