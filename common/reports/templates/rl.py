"""The report template rl-analysis: how a controller learned, how it modulates, and whether it beat its baselines."""

from __future__ import annotations

from common.config import NEGLIGIBLE_MODULATION, REWARD_COMPONENTS
from common.metrics import names
from common.reports.facts import ExperimentFacts
from common.reports.templates import ablation
from common.reports.templates.pieces import TYPES, ReportSection, chart, course, divergence, extreme
from common.reports.words import literal, markdown_table, number
from tidal_client.vocabulary import ExperimentType


def rl_sections(facts: ExperimentFacts) -> list[ReportSection]:
    """Return the sections of the report; the verdict comes first."""
    found = [ReportSection("Did the controller beat its baselines?", ablation.blocks(facts))]
    if facts.type == ExperimentType.ABLATION:
        return found
    if facts.type != ExperimentType.RL:
        kind = TYPES.get(facts.type, facts.type)
        text = f"{literal(facts.label)} is of type {kind}, in which no controller is trained."
        return [*found, ReportSection("Training of the controller", [text])]
    return [
        *found,
        ReportSection("Reward", _reward(facts)),
        ReportSection("Policy", _policy(facts)),
        ReportSection("Reward components", _components(facts)),
        ReportSection("Value function and constraint", _value(facts)),
    ]


def _reward(facts: ExperimentFacts) -> list[str]:
    blocks = []
    shown = {
        names.EPISODE_REWARD: "The moving average of the episodes' reward",
        names.STEP_REWARD: "The reward per token of the rollouts",
        names.EVALUATION_REWARD: "The reward per token of the deterministic policy on prompts not used in training",
    }
    for name, what in shown.items():
        ends = facts.metrics.get(name)
        if ends:
            blocks.append(course(what, ends) + extreme(ends, high=True))
    if not blocks:
        return [*divergence(facts), "No reward is recorded."]
    blocks = [*divergence(facts), *blocks]
    if names.EVALUATION_REWARD not in facts.metrics:
        blocks.append("The deterministic policy was not evaluated during the training.")
    if names.EPISODE_REWARD in facts.metrics:
        blocks.append(chart(title="Episode reward", experiments=[facts.id], metrics=[names.EPISODE_REWARD]))
    per_token = [name for name in (names.STEP_REWARD, names.EVALUATION_REWARD) if name in facts.metrics]
    if per_token:
        blocks.append(chart(title="Reward per token", experiments=[facts.id], metrics=per_token))
    return blocks


def _policy(facts: ExperimentFacts) -> list[str]:
    blocks = []
    entropy = facts.metrics.get(names.ENTROPY)
    if entropy:
        blocks.append(course("The entropy of the policy in nats", entropy))
        blocks.append(chart(title="Policy entropy, nats", experiments=[facts.id], metrics=[names.ENTROPY]))
    else:
        blocks.append("No entropy is recorded.")
    mean, spread = facts.metrics.get(names.MODULATION_MEAN), facts.metrics.get(names.MODULATION_STD)
    if mean is None:
        return [*blocks, "No modulation is recorded."]
    text = course("The mean modulation", mean)
    if spread:
        text += f" Its standard deviation within the last recorded rollout is {number(spread.last)}"
        text += ": the policy acts almost like a constant." if spread.last < NEGLIGIBLE_MODULATION else "."
    shown = [name for name in (names.MODULATION_MEAN, names.MODULATION_STD) if name in facts.metrics]
    return [*blocks, text, chart(title="Modulation", experiments=[facts.id], metrics=shown)]


def _components(facts: ExperimentFacts) -> list[str]:
    found = [(name, facts.metrics.get(names.REWARD_PREFIX + name)) for name in REWARD_COMPONENTS]
    rows = [[name, number(ends.first), number(ends.last)] for name, ends in found if ends]
    if not rows:
        return ["No reward components are recorded."]
    shown = [names.REWARD_PREFIX + name for name, ends in found if ends]
    return [
        markdown_table(["Component", "First", "Last"], rows, right=(1, 2)),
        chart(title="Reward components", experiments=[facts.id], metrics=shown),
    ]


def _value(facts: ExperimentFacts) -> list[str]:
    explained = facts.metrics.get(names.EXPLAINED_VARIANCE)
    blocks = [course("The explained variance of the value function", explained)] if explained else []
    multiplier, cost = facts.metrics.get(names.LAGRANGE_MULTIPLIER), facts.metrics.get(names.COST)
    if multiplier and multiplier.highest > 0:
        blocks.append(course("The Lagrange multiplier of the diversity constraint", multiplier))
    if cost:
        blocks.append(course("The mean shortfall of diversity", cost))
    return blocks or ["No metrics of the value function or the constraint are recorded."]
