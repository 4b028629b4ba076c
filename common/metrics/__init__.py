"""Metrics: written by training (`MetricsWriter`), read back for charts (`read_table`, `downsample`). No torch."""

from common.metrics.downsample import downsample, lttb
from common.metrics.table import MetricPoint, MetricTable, metric_names, read_table
from common.metrics.writer import MetricsWriter

__all__ = [
    "MetricPoint",
    "MetricTable",
    "MetricsWriter",
    "downsample",
    "lttb",
    "metric_names",
    "read_table",
]
