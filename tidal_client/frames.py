"""Converts replies to data frames. Needs pandas, which is no dependency of this package: `pip install pandas`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .wire.experiment import ExperimentReply, SampleHistory
from .wire.metrics import MetricsReply

if TYPE_CHECKING:
    import pandas


def metrics_frame(metrics: MetricsReply) -> pandas.DataFrame:
    """Return the metrics with one column per metric, in the order of `keys`, and the steps as index.

    A metric without a value at a step is NaN there. Raises ImportError without pandas.
    """
    columns = {
        key: _pandas().Series(
            [point.value for point in metrics.series.get(key, [])],
            index=[point.step for point in metrics.series.get(key, [])],
            dtype="float64",
        )
        for key in metrics.keys
    }
    frame = _pandas().DataFrame(columns, columns=metrics.keys)
    frame.index = frame.index.astype("int64")
    return frame.sort_index().rename_axis("step")


def experiments_frame(experiments: Iterable[ExperimentReply]) -> pandas.DataFrame:
    """Return a table of experiments with one row each and the ids as index. Raises ImportError without pandas."""
    fields = [name for name in ExperimentReply.model_fields if name not in ("id", "progress")]
    found = list(experiments)
    rows = [[_plain(getattr(experiment, name)) for name in fields] for experiment in found]
    return _pandas().DataFrame(rows, columns=fields, index=_pandas().Index([each.id for each in found], name="id"))


def samples_frame(history: SampleHistory) -> pandas.DataFrame:
    """Return the columns step, prompt and generated, with one row per completion. Raises ImportError without pandas."""
    rows = [(row.step, sample.prompt, sample.generated) for row in history.rows for sample in row.samples]
    return _pandas().DataFrame(rows, columns=["step", "prompt", "generated"])


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError("data frames need pandas; install it with: pip install pandas") from None
    return pandas
