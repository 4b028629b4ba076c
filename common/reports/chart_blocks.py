"""Parses and checks fenced blocks ```chart, which describe a chart in YAML or JSON; each kind has a Pydantic model.

    {"experiments": ["<id>"], "metrics": ["Losses/Total", "Losses/Validation"], "title": "Loss", "logScale": true}
    {"kind": "ablation", "experiment": "<id>", "quantity": "total", "paired": true}
    {"kind": "trajectory", "analysis": "ana_…", "prompt": 1}
    {"kind": "sweep", "analysis": "ana_…", "measure": "wordCount"}

`common.reports.markdown` finds the blocks. It is not checked whether the experiments and analyses exist, because they
may be deleted later.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from common.config.yaml_text import parse_yaml
from common.errors import ConfigError

MAX_BODY = 4000
"""Largest number of characters of one block."""
MAX_LINES = 8
"""Largest number of lines in one chart, which is the number of colours."""

ExperimentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
AnalysisId = Annotated[str, StringConstraints(pattern=r"^ana_[a-z2-7]{1,32}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Measure = Literal["wordCount", "uniqueWordRatio", "charCount"]
Quantity = Literal["total", "perplexity", "diversity", "sampling", "repetition", "coherence", "modulation", "length"]


class _Chart(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, use_attribute_docstrings=True)

    title: Name | None = None
    """Heading of the chart; without one, the chart is named after its contents."""


class MetricsChart(_Chart):
    """A line chart of metrics of pretraining or of controller training."""

    kind: Literal["metrics"] = "metrics"
    experiments: list[ExperimentId] = Field(min_length=1, max_length=MAX_LINES)
    metrics: list[Name] = Field(min_length=1, max_length=MAX_LINES)
    log_scale: bool = False

    @model_validator(mode="after")
    def _few_lines(self) -> Self:
        for values, key in ((self.experiments, "experiments"), (self.metrics, "metrics")):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} contains a name twice; remove one")
        if len(self.experiments) * len(self.metrics) > MAX_LINES:
            raise ValueError(f"the number of experiments times metrics exceeds {MAX_LINES} lines; make two charts")
        return self


class AblationChart(_Chart):
    """A bar chart with intervals that compares a controller with its baselines, optionally as paired differences."""

    kind: Literal["ablation"]
    experiment: ExperimentId
    quantity: Quantity = "total"
    paired: bool = False


class TrajectoryChart(_Chart):
    """A line chart of the modulation at each token for one prompt of a saved analysis."""

    kind: Literal["trajectory"]
    analysis: AnalysisId
    prompt: int = Field(1, ge=1, le=256)
    """Number of the prompt, counted from 1."""


class SweepChart(_Chart):
    """A line chart with one line per prompt: a measure such as the word count at modulation 0, 0.5 and 1."""

    kind: Literal["sweep"]
    analysis: AnalysisId
    measure: Measure = "wordCount"


Chart = MetricsChart | AblationChart | TrajectoryChart | SweepChart
_KINDS: dict[str, type[Chart]] = {
    "metrics": MetricsChart,
    "ablation": AblationChart,
    "trajectory": TrajectoryChart,
    "sweep": SweepChart,
}


def parse_chart(body: str) -> Chart:
    """Return the chart that a block describes; raise ValueError with a message on one line if it is invalid."""
    if len(body) > MAX_BODY:
        raise ValueError(f"the block is longer than {MAX_BODY} characters")
    value = _mapping(body)
    kind = value.get("kind", "metrics")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ValueError(f"kind {str(kind)[:40]!r} is unknown; use one of {', '.join(_KINDS)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError("; ".join(_finding(model, dict(item)) for item in error.errors()[:3])) from None


def experiments_of(chart: Chart) -> list[str]:
    """Return the ids of the experiments that a chart names."""
    if isinstance(chart, MetricsChart):
        return list(chart.experiments)
    return [chart.experiment] if isinstance(chart, AblationChart) else []


def analyses_of(chart: Chart) -> list[str]:
    """Return the ids of the saved analyses that a chart names."""
    return [chart.analysis] if isinstance(chart, TrajectoryChart | SweepChart) else []


def _mapping(body: str) -> dict[str, Any]:
    try:
        value = parse_yaml(body, aliases=False)
    except ConfigError as error:
        raise ValueError(f"the block is neither YAML nor JSON: {error.message}") from None
    if not isinstance(value, dict):
        raise ValueError('the block must be a mapping, such as {"experiments": ["<id>"], "metrics": ["Losses/Total"]}')
    return value


def _finding(model: type[BaseModel], item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = ", ".join(field.alias or name for name, field in model.model_fields.items())
        return f"unknown key '{place}'; the keys are {known}"
    if item["type"] == "missing":
        return f"'{place}' is missing"
    return f"{place}: {message}" if place else message
