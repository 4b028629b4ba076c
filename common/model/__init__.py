"""The language model: a pre-norm transformer whose gates, if any, scale its residual branches by the modulation.

Uses only torch. Files are in `common.checkpoint`, sampling in `common.generation`, optimisers in `common.training`.
"""

from common.config.model import ModelConfig
from common.model.gate import DynamicGate
from common.model.kv_cache import KVCache
from common.model.transformer import TransformerLM

__all__ = ["DynamicGate", "KVCache", "ModelConfig", "TransformerLM"]
