"""The report template experiment-overview: an experiment, its non-default settings, its progress and its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.metrics import names
from common.reports.facts import ExperimentFacts
from common.reports.templates.pieces import TYPES, ReportSection, chart, course, divergence, extreme, mappings
from common.reports.words import code, count, format_size, format_time, literal, markdown_table, number, plural, value
from tidal_client.vocabulary import IMPORTED, ExperimentType, JobStatus

MOST_SETTINGS = 60
MOST_CHECKPOINTS = 12
MOST_SAMPLES = 6
ENDED: dict[str, str] = {
    JobStatus.COMPLETED: "It has completed",
    JobStatus.FAILED: "It failed",
    JobStatus.CANCELLED: "It was cancelled",
    IMPORTED: "It was imported",
}


def overview_sections(facts: ExperimentFacts) -> list[ReportSection]:
    """Return the sections of the overview, from the first to the last."""
    found = [ReportSection("What it is", _what(facts)), ReportSection("Configuration", _configuration(facts))]
    found.append(ReportSection("Progress", _progress(facts)))
    if facts.type in (ExperimentType.LM, ExperimentType.RL):
        found.append(ReportSection("Loss" if facts.type != ExperimentType.RL else "Reward", _course(facts)))
    found.append(ReportSection("Checkpoints", _checkpoints(facts)))
    if facts.type in (ExperimentType.LM, ExperimentType.EVALUATION) or facts.evaluation is not None:
        found.append(ReportSection("Evaluation and samples", _samples(facts)))
    return found


def _what(facts: ExperimentFacts) -> list[str]:
    rows = [
        ["Experiment", f"[{literal(facts.label)}](#/experiments/{facts.id})"],
        ["Id", code(facts.id)],
        ["Type", TYPES.get(facts.type, facts.type)],
        ["Status", facts.status],
        ["Created", format_time(facts.created_at)],
    ]
    if facts.finished_at:
        rows.append(["Ended", format_time(facts.finished_at)])
    if facts.source_experiment_id or facts.source_checkpoint:
        reference = facts.source_checkpoint or facts.source_experiment_id or ""
        rows.append(["Started from", code(reference, cell=True)])
    if facts.tags:
        rows.append(["Tags", ", ".join(literal(tag) for tag in facts.tags)])
    blocks = [markdown_table(["", ""], rows)]
    if facts.notes:
        blocks += ["Notes:", f"> {literal(facts.notes)}"]
    return blocks


def _configuration(facts: ExperimentFacts) -> list[str]:
    if facts.config is None:
        return ["No configuration is stored with this experiment."]
    missing = object()
    different = [
        (name, item, facts.defaults.get(name, missing))
        for name, item in facts.config.items()
        if facts.defaults.get(name, missing) != item
    ]
    if not different:
        return [f"All {plural(len(facts.config), 'stored setting')} have their default values."]
    rows = [
        [code(name, cell=True), value(item), "none" if default is missing else value(default)]
        for name, item, default in different[:MOST_SETTINGS]
    ]
    verb = "differs from its default" if len(different) == 1 else "differ from their defaults"
    blocks = [f"{len(different)} of {plural(len(facts.config), 'stored setting')} {verb}."]
    blocks.append(markdown_table(["Setting", "Here", "Default"], rows))
    if len(different) > MOST_SETTINGS:
        blocks.append(f"{len(different) - MOST_SETTINGS} more are not shown.")
    return blocks


def _progress(facts: ExperimentFacts) -> list[str]:
    begin = ENDED.get(facts.status, f"It is {facts.status}")
    if facts.step is None:
        steps = "; no step is recorded"
    elif facts.total_steps:
        steps = f" at step {count(facts.step)} of {count(facts.total_steps)}"
    else:
        steps = f" at step {count(facts.step)}"
    text = f"{begin}{steps}." if facts.status != IMPORTED else f"{begin}, so Tidal has not recorded its progress."
    if facts.attempts > 1:
        text += f" It took {facts.attempts} attempts."
    blocks = [text]
    if facts.error:
        blocks.append(f"Error: {literal(facts.error)}")
    return blocks


def _course(facts: ExperimentFacts) -> list[str]:
    if facts.type == ExperimentType.RL:
        return _reward(facts)
    loss, validation = facts.metrics.get(names.LOSS), facts.metrics.get(names.VALIDATION_LOSS)
    blocks = divergence(facts)
    if loss:
        blocks.append(course("The training loss", loss) + extreme(loss))
    else:
        blocks.append(f"No {'finite ' if names.LOSS in facts.diverged else ''}training loss is recorded.")
    if validation:
        text = course("The validation loss", validation) + extreme(validation)
        perplexity = facts.metrics.get(names.PERPLEXITY)
        if perplexity:
            text += f" The last validation perplexity is {number(perplexity.last)}."
        bits_per_byte = facts.metrics.get(names.BITS_PER_BYTE)
        if bits_per_byte:
            text += f" This is {number(bits_per_byte.last)} bits per byte of text."
        blocks.append(text)
    else:
        finite = "finite " if names.VALIDATION_LOSS in facts.diverged else ""
        blocks.append(f"No {finite}validation loss is recorded.")
    shown = [name for name in (names.LOSS, names.VALIDATION_LOSS) if name in facts.metrics or name in facts.diverged]
    if shown:
        blocks.append(chart(title="Loss, nats per token", experiments=[facts.id], metrics=shown))
    speed = facts.metrics.get(names.TOKENS_PER_SECOND)
    if speed:
        size = facts.metrics.get(names.BYTES_PER_SECOND)
        text = f", or {format_size(round(size.last))} of text per second" if size else ""
        blocks.append(f"The last recorded speed is {number(speed.last)} tokens per second{text}.")
    return blocks


def _reward(facts: ExperimentFacts) -> list[str]:
    reward = facts.metrics.get(names.EPISODE_REWARD)
    if reward is None:
        return [*divergence(facts), "No reward is recorded."]
    return [
        *divergence(facts),
        course("The moving average of the episodes' reward", reward),
        chart(title="Reward", experiments=[facts.id], metrics=[names.EPISODE_REWARD]),
    ]


def _checkpoints(facts: ExperimentFacts) -> list[str]:
    if not facts.checkpoints:
        return ["There are no checkpoints."]
    rows = [
        [
            code(checkpoint.name, cell=True) + (" (best)" if checkpoint.best else ""),
            checkpoint.kind,
            count(checkpoint.step),
            format_size(checkpoint.size_bytes),
        ]
        for checkpoint in facts.checkpoints[:MOST_CHECKPOINTS]
    ]
    blocks = [markdown_table(["Name", "Kind", "Step", "Size"], rows, right=(2, 3))]
    if len(facts.checkpoints) > MOST_CHECKPOINTS:
        blocks.append(f"{len(facts.checkpoints) - MOST_CHECKPOINTS} more are not shown.")
    return blocks


def _samples(facts: ExperimentFacts) -> list[str]:
    if facts.evaluation is None:
        return ["There is no evaluation."]
    rows = [
        [literal(name.replace("_", " ")), number(float(item), 5)]
        for name, item in facts.evaluation.items()
        if isinstance(item, int | float) and not isinstance(item, bool)
    ]
    blocks = [markdown_table(["Figure", "Value"], rows, right=(1,))] if rows else []
    texts = mappings(facts.evaluation.get("samples"))
    blocks += [_sample(item) for item in texts[:MOST_SAMPLES]] or ["The evaluation contains no samples."]
    return blocks


def _sample(item: Mapping[str, Any]) -> str:
    prompt, text = str(item.get("prompt", "")), str(item.get("generated", ""))
    text = text.removeprefix(prompt)
    return f"> **{literal(prompt) or '(new document)'}** {literal(text)}"
