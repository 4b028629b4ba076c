"""Metrics of trainings: training writes them (`MetricsWriter`), charts read them (`read_table`, `downsample`)."""

from common.metrics.downsample import downsample, lttb
from common.metrics.event_file import EventFile
from common.metrics.table import MetricPoint, MetricTable, metric_names, read_table
from common.metrics.writer import MetricsWriter

__all__ = [
    "EventFile",
    "MetricPoint",
    "MetricTable",
    "MetricsWriter",
    "downsample",
    "lttb",
    "metric_names",
    "read_table",
]
