"""Metrics: written by training (`MetricsWriter`), read back for charts (`read_table`, `downsample`). No torch."""

from common.metrics.downsample import downsample, lttb
from common.metrics.reader import MetricPoint, metric_names, read_metrics
from common.metrics.table import MetricTable, read_table
from common.metrics.writer import MetricsWriter

__all__ = [
    "MetricPoint",
    "MetricTable",
    "MetricsWriter",
    "downsample",
    "lttb",
    "metric_names",
    "read_metrics",
    "read_table",
]
