"""Trajectory analysis: what a policy does with the modulation."""

from common.analysis.stats import bootstrap_interval
from common.analysis.trajectory import TrajectoryToken, analyze_batch, analyze_sweep, analyze_trajectory

__all__ = ["TrajectoryToken", "analyze_batch", "analyze_sweep", "analyze_trajectory", "bootstrap_interval"]
