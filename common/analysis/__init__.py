"""Trajectory analysis: how a policy uses the modulation. The package imports no torch, so the api can use it."""

from common.analysis.result import GeneratedSample, SampleGroup, analysis_result, plan_samples
from common.analysis.stats import bootstrap_interval
from common.analysis.trajectory import TrajectoryToken, analyze_batch, analyze_sweep, analyze_trajectory

__all__ = [
    "GeneratedSample",
    "SampleGroup",
    "TrajectoryToken",
    "analysis_result",
    "analyze_batch",
    "analyze_sweep",
    "analyze_trajectory",
    "bootstrap_interval",
    "plan_samples",
]
