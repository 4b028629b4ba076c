"""The language model: a pre-norm transformer whose blocks carry a gate that modulation can close or open.

Pure torch, no files (`common.checkpoint`), no sampling (`common.generation`), no optimiser (`common.training`).
"""

from common.config.lm import ModelConfig
from common.model.gate import DynamicGate
from common.model.kv_cache import KVCache
from common.model.transformer import TransformerLM

__all__ = ["DynamicGate", "KVCache", "ModelConfig", "TransformerLM"]
