"""Typed, immutable configurations of jobs (`LMConfig`, `RLConfig`, `AnalysisConfig`) and of processes (`Settings`)."""

from common.config.analysis import AnalysisConfig
from common.config.data import DataConfig
from common.config.lm import CheckpointConfig, EvaluationConfig, LMConfig, TrainingConfig
from common.config.loader import build, dump_yaml, load_lm_config, load_rl_config, merge
from common.config.model import ModelConfig
from common.config.rl import (
    NEGLIGIBLE_MODULATION,
    REWARD_COMPONENTS,
    AblationConfig,
    EpisodeConfig,
    ModulationConfig,
    PolicyConfig,
    PPOConfig,
    Range,
    RewardConfig,
    RLConfig,
)
from common.config.settings import PROJECT_ROOT, Settings, get_settings

__all__ = [
    "NEGLIGIBLE_MODULATION",
    "PROJECT_ROOT",
    "REWARD_COMPONENTS",
    "AblationConfig",
    "AnalysisConfig",
    "CheckpointConfig",
    "DataConfig",
    "EpisodeConfig",
    "EvaluationConfig",
    "LMConfig",
    "ModelConfig",
    "ModulationConfig",
    "PPOConfig",
    "PolicyConfig",
    "RLConfig",
    "Range",
    "RewardConfig",
    "Settings",
    "TrainingConfig",
    "build",
    "dump_yaml",
    "get_settings",
    "load_lm_config",
    "load_rl_config",
    "merge",
]
