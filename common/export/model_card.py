"""README.md of an exported model folder: what the model is, how to use it, what it was measured at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.model import TransformerLM

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- tidal
---
"""
USE = """
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)  # or the path of this folder
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
inputs = tokenizer(["Once upon a time", "The little cat"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=100), skip_special_tokens=True))
```

`trust_remote_code` runs `modeling_tidal.py` of this folder (Apache-2.0); read it first, it is one short file.
"""
WITHOUT_TOKENIZER = """
## Use

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)  # or the path of this folder
```

Its vocabulary is not GPT-2's, so no tokeniser is included. `trust_remote_code` runs `modeling_tidal.py` of this folder
(Apache-2.0); read it first, it is one short file.
"""
MODULATION = """
## Modulation

Every block has gates that take one number m between 0 and 1. `model(input_ids, modulation=m)` and
`model.generate(…, modulation=m)` feed it; without it the gates are not there. `generate` reads the prompt without m and
gives it to each token it writes. {trained} Tidal's own engine also derives temperature, top-k, top-p and repetition
penalty from m, and has controllers that choose m for each token; this folder does neither.
"""
LIMITS = """
## Limits

At most {context} tokens, prompt included: beyond that the model raises an error (Tidal itself slides a window). The
licence of the weights is for those who trained them to state.
"""


def text(model: TransformerLM, origin: str, evaluation: Mapping[str, Any] | None, *, has_tokenizer: bool) -> str:
    """Markdown with front matter. `evaluation`: what the training measured of this very model, if known."""
    c = model.config
    trained = (
        "The gates of this model were trained with m."
        if model.gates_trained
        else "The gates of this model were not trained with m, so Tidal would not feed it."
    )
    rows = [
        ("parameters", f"{model.num_parameters:,}"),
        ("blocks × width, heads", f"{c.num_layers} × {c.d_model}, {c.num_heads}"),
        ("context", f"{c.context_length} tokens"),
        ("vocabulary", f"{c.vocab_size:,}" + (" (GPT-2 BPE)" if has_tokenizer else "")),
        ("exported from", f"`{origin}`"),
        *_measured(evaluation or {}),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"{HEAD}\n# {c.name} {c.version}\n\nA small language model trained with Tidal.\n\n| | |\n|---|---|\n{table}\n"
        + (USE if has_tokenizer else WITHOUT_TOKENIZER)
        + MODULATION.format(trained=trained)
        + LIMITS.format(context=c.context_length)
    )


def _measured(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    numbers = [("validation_loss", "validation loss", ".4f"), ("perplexity", "perplexity", ".2f")]
    found = [
        (name, f"{evaluation[key]:{form}}")
        for key, name, form in numbers
        if isinstance(evaluation.get(key), int | float)
    ]
    if evaluation.get("corpus"):
        found.append(("corpus", str(evaluation["corpus"]).replace("|", "\\|").replace("\n", " ")))
    if isinstance(evaluation.get("tokens_seen"), int):
        found.append(("tokens seen", f"{evaluation['tokens_seen']:,}"))
    return found
