"""The four patterns: from the facts of one or several experiments to Markdown.

Every number comes from the facts; what is missing is said, never filled in. Leaves out: reading the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.reports.facts import ExperimentFacts
from common.reports.patterns import comparison, overview, rl, trajectory
from common.reports.patterns.pieces import Section, fewer_charts
from common.reports.words import literal
from tidal_client.vocabulary import ExperimentType

Maker = Callable[[ExperimentFacts], list[Section]]


@dataclass(frozen=True)
class Pattern:
    """One of them."""

    name: str
    title: str
    """Of a report about an experiment: `<title>: <experiment>`."""
    about: str
    make: Maker


def _full(facts: ExperimentFacts) -> list[Section]:
    found = overview.sections(facts)
    if facts.type in (ExperimentType.RL, ExperimentType.ABLATION) or facts.ablation is not None:
        learning = rl.sections(facts)
        replaced = {section.title for section in learning}  # the reward, in more detail
        found = [section for section in found if section.title not in replaced] + learning
    return found + trajectory.sections(facts)


PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern(
            "experiment-overview",
            "Overview",
            "What it is, its configuration beside the defaults, loss and validation, checkpoints, samples.",
            overview.sections,
        ),
        Pattern(
            "rl-analysis",
            "Controller",
            "Reward, entropy and modulation of a controller, and whether it beat its baselines.",
            rl.sections,
        ),
        Pattern(
            "trajectory-report",
            "Trajectories",
            "The saved analyses: what is done with the modulation, within and between prompts.",
            trajectory.sections,
        ),
        Pattern(
            "full-report",
            "Report",
            "All of it: the overview, the controller where there is one, the trajectories.",
            _full,
        ),
    )
}


def generate(pattern: str, experiments: Sequence[ExperimentFacts]) -> tuple[str, str]:
    """Title and Markdown of a report; `pattern` is a key of `PATTERNS`, at least one experiment."""
    chosen = PATTERNS[pattern]
    if len(experiments) == 1:
        [facts] = experiments
        return f"{chosen.title}: {facts.label}", fewer_charts(_text(chosen.make(facts), 2))
    title = f"{chosen.title}: {experiments[0].label} and {len(experiments) - 1} more"
    parts = [_text(comparison.sections(experiments), 2)]
    for facts in experiments:
        parts.append(f"## {literal(facts.label)}\n\n{_text(chosen.make(facts), 3)}")
    return title, fewer_charts("\n".join(parts))


def _text(sections: Sequence[Section], level: int) -> str:
    return "\n".join(section.markdown(level) for section in sections)
