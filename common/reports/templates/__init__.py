"""Generates Markdown reports from the data of experiments, with one of four templates.

All numbers come from the given data, and a report states which data are missing. The caller reads the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.reports.facts import ExperimentFacts
from common.reports.templates import comparison, overview, rl, trajectory
from common.reports.templates.pieces import ReportSection, fewer_charts
from common.reports.words import literal
from tidal_client.vocabulary import ExperimentType

Maker = Callable[[ExperimentFacts], list[ReportSection]]


@dataclass(frozen=True)
class Template:
    """A report template: its name, and the function that generates the sections of the report."""

    name: str
    title: str
    """First part of a report's title, `<title>: <experiment>`."""
    about: str
    """Description of the template for users."""
    make: Maker


def _full(facts: ExperimentFacts) -> list[ReportSection]:
    found = overview.overview_sections(facts)
    if facts.type in (ExperimentType.RL, ExperimentType.ABLATION) or facts.ablation is not None:
        learning = rl.rl_sections(facts)
        # The reward section of `rl_sections` replaces the less detailed one of the overview.
        replaced = {section.title for section in learning}
        found = [section for section in found if section.title not in replaced] + learning
    return found + trajectory.trajectory_sections(facts)


TEMPLATES = {
    template.name: template
    for template in (
        Template(
            "experiment-overview",
            "Overview",
            "The experiment, its non-default settings, its training and validation loss, checkpoints and samples.",
            overview.overview_sections,
        ),
        Template(
            "rl-analysis",
            "Controller",
            "Reward, entropy and modulation of a controller, and a comparison with its baselines.",
            rl.rl_sections,
        ),
        Template(
            "trajectory-report",
            "Trajectories",
            "The saved analyses: how the modulation varies within and between prompts.",
            trajectory.trajectory_sections,
        ),
        Template(
            "full-report",
            "Report",
            "The overview, the controller if there is one, and the trajectories.",
            _full,
        ),
    )
}


def generate_report(template: str, experiments: Sequence[ExperimentFacts]) -> tuple[str, str]:
    """Return title and Markdown of a report about one or more experiments; `template` is a key of `TEMPLATES`."""
    chosen = TEMPLATES[template]
    if len(experiments) == 1:
        [facts] = experiments
        return f"{chosen.title}: {facts.label}", fewer_charts(_text(chosen.make(facts), 2))
    title = f"{chosen.title}: {experiments[0].label} and {len(experiments) - 1} more"
    parts = [_text(comparison.comparison_sections(experiments), 2)]
    for facts in experiments:
        parts.append(f"## {literal(facts.label)}\n\n{_text(chosen.make(facts), 3)}")
    return title, fewer_charts("\n".join(parts))


def _text(sections: Sequence[ReportSection], level: int) -> str:
    return "\n".join(section.markdown(level) for section in sections)
