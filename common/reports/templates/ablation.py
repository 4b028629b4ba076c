"""Generates the section about an ablation: rewards of the policies, their paired differences, and a verdict in words.

The verdict is derived from the 95 % intervals of the paired differences, which `common.rl.comparison` computes. If the
interval is above 0, the controller beat the baseline; if it is below 0, the controller did worse; otherwise, the
controller did not beat the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.reports.facts import ExperimentFacts
from common.reports.templates.pieces import chart, mapping
from common.reports.words import count, literal, markdown_table, number

BEAT, WORSE, NOT = "beat", "did worse than", "did not beat"
BEST_CONSTANT = "best constant"


def blocks(facts: ExperimentFacts) -> list[str]:
    """Return the section as blocks of Markdown; if there is no ablation, the only block is a sentence about that."""
    found = facts.ablation
    if found is None:
        return ["This experiment has no ablation, so it is not known whether a controller helps."]
    policies, paired = mapping(found.get("policies")), mapping(found.get("paired"))
    made = [ablation_verdict(paired)]
    behaviour = mapping(found.get("behaviour"))
    if behaviour.get("verdict"):
        made.append(literal(str(behaviour["verdict"]), 400))
    rows = [_policy(name, mapping(row)) for name, row in policies.items()]
    if rows:
        made.append(
            markdown_table(
                ["Policy", "Reward per token", "95 % interval", "Modulation", "Tokens"], rows, right=(1, 2, 3, 4)
            )
        )
        made.append(chart(kind="ablation", title="Reward per token by policy", experiment=facts.id))
    differences = [
        [f"learned − {literal(_other(name))}", *_figures(mapping(mapping(row).get("total")), signed=True)]
        for name, row in paired.items()
    ]
    if differences:
        made.append("Differences in reward per token, paired by prompt:")
        made.append(markdown_table(["Difference", "Mean", "95 % interval"], differences, right=(1, 2)))
        made.append(chart(kind="ablation", title="Differences paired by prompt", experiment=facts.id, paired=True))
    conditions = mapping(found.get("conditions"))
    if conditions:
        made.append(_conditions(conditions, mapping(found.get("best_constant")).get("modulation")))
    return made


def ablation_verdict(paired: Mapping[str, Any]) -> str:
    """Return a conclusion from the confidence intervals of the paired differences, as a Markdown paragraph."""
    outcomes = {_other(name): _outcome(mapping(mapping(row).get("total"))) for name, row in paired.items()}
    known = {name: outcome for name, outcome in outcomes.items() if outcome}
    if not known:
        return "**It is not known whether the controller helps:** the ablation contains no paired differences."
    comparisons = "; ".join(f"it {outcome} {literal(name)}" for name, outcome in known.items())
    losses = [name for name, outcome in known.items() if outcome != BEAT]
    if losses:
        scope = "its baselines" if len(losses) == len(known) else "all of its baselines"
        return (
            f"**No: the controller did not beat {scope}.** By the 95 % intervals of the paired differences, "
            f"{comparisons}. If an interval includes 0, the difference may be chance."
        )
    made = f"**Yes, against these baselines:** by the 95 % intervals of the paired differences, {comparisons}."
    if BEST_CONSTANT in known:
        return f"{made} The best constant was chosen among 21 on other prompts."
    return f"{made} The fixed baseline is a single constant; another constant may still beat the controller."


def _outcome(total: Mapping[str, Any]) -> str | None:
    low, high = total.get("ci_low"), total.get("ci_high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return BEAT if low > 0 else WORSE if high < 0 else NOT


def _other(name: str) -> str:
    return name.removeprefix("learned_minus_").replace("_", " ")


def _policy(name: str, row: Mapping[str, Any]) -> list[str]:
    mean, interval = _figures(mapping(row.get("total")))
    modulation, length = (mapping(row.get(key)).get("mean") for key in ("modulation", "length"))
    return [literal(name.replace("_", " ")), mean, interval, number(modulation), number(length)]


def _figures(total: Mapping[str, Any], *, signed: bool = False) -> list[str]:
    low, high = total.get("ci_low"), total.get("ci_high")
    interval = (
        f"{number(low, signed=signed)} to {number(high, signed=signed)}"
        if low is not None and high is not None
        else "–"
    )
    return [number(total.get("mean"), signed=signed), interval]


def _conditions(conditions: Mapping[str, Any], best: Any) -> str:
    parts = []
    if "prompts" in conditions:
        parts.append(f"{count(conditions['prompts'])} prompts")
    different = conditions.get("different_prompts")
    if different is not None and different != conditions.get("prompts"):
        parts.append(f"{count(different)} of them distinct")
    if "max_length" in conditions:
        parts.append(f"episodes of at most {count(conditions['max_length'])} tokens")
    if "fixed_modulation" in conditions:
        parts.append(f"fixed modulation m = {number(conditions['fixed_modulation'])}")
    if best is not None:
        chosen = f"best constant m = {number(best)}"
        if "development_prompts" in conditions:
            chosen += f", chosen on {count(conditions['development_prompts'])} other prompts"
        parts.append(chosen)
    if "seed" in conditions:
        parts.append(f"seed {literal(str(conditions['seed']))}")
    source = conditions.get("prompt_source")
    tail = f" Prompts come from {literal(str(source))}." if source else ""
    return f"Conditions: {', '.join(parts)}.{tail}"
