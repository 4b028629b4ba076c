"""Reads and writes weights and training state: all formats of the original project, and Tidal's own checkpoints.

Tidal writes checkpoints atomically and with a SHA-256 of each file. No function runs code from a file: `.pth` files are
read with `weights_only=True`, and Tidal's own weights are safetensors.
"""

from common.checkpoint.files import safe_load
from common.checkpoint.manager import CheckpointInfo, CheckpointManager, SkippedCheckpoint
from common.checkpoint.model_file import MigrationResult, load_model, load_vocabulary, migrate_checkpoint, save_model
from common.checkpoint.policy_file import load_policy_file
from common.checkpoint.snapshot import Score, TrainingSnapshot, host_copy, tensor_bytes
from common.checkpoint.state import export_legacy_state_dict
from common.checkpoint.writer import CheckpointListener, CheckpointWriter

__all__ = [
    "CheckpointInfo",
    "CheckpointListener",
    "CheckpointManager",
    "CheckpointWriter",
    "MigrationResult",
    "Score",
    "SkippedCheckpoint",
    "TrainingSnapshot",
    "export_legacy_state_dict",
    "host_copy",
    "load_model",
    "load_policy_file",
    "load_vocabulary",
    "migrate_checkpoint",
    "safe_load",
    "save_model",
    "tensor_bytes",
]
