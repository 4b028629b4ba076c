"""Trajectory analysis: what a policy does with the modulation. Pure Python: the api computes with it too."""

from common.analysis.report import Part, Sample, plan, report
from common.analysis.stats import bootstrap_interval
from common.analysis.trajectory import TrajectoryToken, analyze_batch, analyze_sweep, analyze_trajectory

__all__ = [
    "Part",
    "Sample",
    "TrajectoryToken",
    "analyze_batch",
    "analyze_sweep",
    "analyze_trajectory",
    "bootstrap_interval",
    "plan",
    "report",
]
