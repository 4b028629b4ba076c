"""`model.depth`: one number from which the shape of a model, its batch and its learning rate follow.

For depth L the model has L blocks, width 64 L, L heads of width 64 and a feed-forward layer of width 256 L. The blocks
then have 12 L D² = 49,152 L³ weights:

| depth | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |
|---|---|---|---|---|---|---|---|---|
| width | 64 | 128 | 192 | 256 | 320 | 384 | 448 | 512 |
| weights of the blocks in millions | 0.05 | 0.4 | 1.3 | 3.1 | 6.1 | 10.6 | 16.9 | 25.2 |

* Width / layers = 64 is the ratio of GPT-2 small and of nanochat. Between 30 and 200 it hardly changes the loss (Kaplan
  et al. 2020, section 3.1 and figure 5), so one number is enough.
* A head width of 64 is GPT-2's. Wider heads are too few in a small model, and narrower ones need more of attention's
  time, which on a CPU grows with the number of heads.
* The learning rate falls with 1 / √width, as nanochat scales AdamW's.
* The batch grows linearly with the depth, from 16 to 64 sequences at depth 8, because larger models are trained on more
  text and the useful batch grows as the loss falls (McCandlish et al. 2018).

`depth: auto` chooses the depth from the size of the text, so that the blocks have about one weight per byte, and then
also sets dropout and weight decay: they are strongest if the model could learn the text by heart (Kim et al. 2025,
Pre-training under infinite compute, find weight decays of 0.8 to 1.6 best for many epochs).

A field that the same file, request or command line sets as well keeps its value. This module only computes values;
`common.config.lm` applies them when a configuration is built, and `common.prediction.automatic_depth` finds the size of
the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

AUTO: Final = "auto"
WIDTH_PER_LAYER: Final = 64
HEAD_WIDTH: Final = 64
MOST_AUTOMATIC: Final = 8
"""Largest depth that `auto` chooses: a model of 25 M weights without its vocabulary."""
RATE_AT_WIDTH_256: Final = 2e-3
SEQUENCES_PER_LAYER: Final = 8
LARGEST_MICRO_BATCH: Final = 16
STRONGEST_DROPOUT: Final = 0.2
WEAKEST_DECAY: Final = 0.1
STRONGEST_DECAY: Final = 0.8

MODEL_FIELDS: Final = ("d_model", "num_layers", "num_heads", "ffn_dim")
TRAINING_FIELDS: Final = ("learning_rate", "effective_batch_size", "micro_batch_size")
AUTOMATIC: Final = {"model": (*MODEL_FIELDS, "dropout"), "training": (*TRAINING_FIELDS, "weight_decay")}
"""{section: fields} that follow from `depth: auto`."""


def model_fields(depth: int) -> dict[str, int]:
    """Return the shape of a model of this depth."""
    width = WIDTH_PER_LAYER * depth
    return {"d_model": width, "num_layers": depth, "num_heads": width // HEAD_WIDTH, "ffn_dim": 4 * width}


def training_fields(depth: int, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return learning rate and batch for this depth, so that the batches fit those in `explicit`, if any.

    The learning rate is rounded to two digits. The micro-batch is the largest number up to 16 that divides the batch
    and the initial batch, if there is one.
    """
    rate = RATE_AT_WIDTH_256 * math.sqrt(256 / (WIDTH_PER_LAYER * depth))
    batch, micro = whole_number(explicit.get("effective_batch_size")), whole_number(explicit.get("micro_batch_size"))
    if batch is None:
        step = micro or LARGEST_MICRO_BATCH
        batch = step * max(1, math.ceil(SEQUENCES_PER_LAYER * depth / step))
    if micro is None:
        first = whole_number(explicit.get("initial_batch_size")) or batch
        limit = min(LARGEST_MICRO_BATCH, first, batch)
        micro = next(size for size in range(limit, 0, -1) if batch % size == first % size == 0)
    return {"learning_rate": float(f"{rate:.1e}"), "effective_batch_size": batch, "micro_batch_size": micro}


def depth_of_text(text_bytes: int) -> int:
    """Return the largest depth whose blocks have at most one weight per byte of text, between 1 and 8."""
    return max([1, *(depth for depth in range(1, MOST_AUTOMATIC + 1) if block_weights(depth) <= text_bytes)])


def regularisation(depth: int, text_bytes: int) -> tuple[float, float]:
    """Return (dropout, weight decay) for a model that is trained on this text until its loss stops falling.

    Both grow linearly with the weights of the blocks per byte of text, up to one weight per byte.
    """
    share = min(1.0, block_weights(depth) / max(1, text_bytes))
    return round(STRONGEST_DROPOUT * share, 2), round(WEAKEST_DECAY + (STRONGEST_DECAY - WEAKEST_DECAY) * share, 2)


def block_weights(depth: int) -> int:
    """Return the number of weights in the matrices of the blocks."""
    width = WIDTH_PER_LAYER * depth
    return 12 * depth * width * width


def whole_number(value: object) -> int | None:
    """Return `value` as an integer if it is a whole number of at least 1, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**63:
        return None
    return int(value) if value == int(value) else None


def without_superseded(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `values` without the fields that follow from the depth, if `overrides` contain a depth.

    A depth in a request replaces the shape that the configuration file spells out. What the request itself spells out
    is merged in later and keeps its value.
    """
    model = overrides.get("model")
    depth = model.get("depth") if isinstance(model, Mapping) else None
    if depth is None:
        return values
    dropped = AUTOMATIC if depth == AUTO else {"model": MODEL_FIELDS, "training": TRAINING_FIELDS}
    kept = dict(values)
    for section, names in dropped.items():
        if isinstance(values.get(section), Mapping):
            kept[section] = {name: value for name, value in values[section].items() if name not in names}
    return kept
