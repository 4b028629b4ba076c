"""Metrics: written by training (`MetricsWriter`), read back for charts (`read_metrics`, `downsample`). No torch."""

from common.metrics.downsample import downsample, lttb
from common.metrics.reader import MetricPoint, metric_names, read_metrics
from common.metrics.writer import MetricsWriter

__all__ = ["MetricPoint", "MetricsWriter", "downsample", "lttb", "metric_names", "read_metrics"]
