"""Writes the README.md of an exported model folder: description, usage, limits and evaluation results."""

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

model = AutoModelForCausalLM.from_pretrained("."{trust})  # or the path of this folder
tokenizer = AutoTokenizer.from_pretrained("."{trust})
inputs = tokenizer(["Once upon a time", "The little cat"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=100), skip_special_tokens=True))
```

{code}
"""
WITHOUT_TOKENIZER = """
## Use

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("."{trust})  # or the path of this folder
```

The vocabulary is not GPT-2's, so no tokeniser is included. {code}
"""
TRUST = ", trust_remote_code=True"
CODE = "`trust_remote_code` runs `modeling_tidal.py` of this folder (Apache-2.0); read it first, it is one short file."
NO_CODE = "The architecture is NanoChat of transformers (version 5 or later), so the folder contains no code."
MODULATION = """
## Modulation

Every block has gates whose input is one number m between 0 and 1, the modulation. Pass it as
`model(input_ids, modulation=m)` or `model.generate(…, modulation=m)`; without it the gates have no effect. `generate`
processes the prompt without m and applies m to each generated token. {trained} Tidal's own engine also derives
temperature, top-k, top-p and repetition penalty from m, and has controllers that choose m for each token. This folder
supports neither.
"""
NO_MODULATION = """
## Modulation

This model has no gates, so it has no input for Tidal's modulation. Tidal's own engine derives temperature, top-k, top-p
and repetition penalty from the modulation, and has controllers that choose it for each token. This folder supports
neither.
"""
LIMITS = """
## Limits

The context is {context} tokens, including the prompt; for more tokens the model raises an error (Tidal's engine uses a
sliding window instead). The owner of the weights decides their licence.
"""
LIMITS_WITHOUT_CODE = """
## Limits

The context is {context} tokens, including the prompt. transformers does not check this, and the model was not trained
for later positions (Tidal's engine uses a sliding window instead). The owner of the weights decides their licence.
"""


def model_card_text(
    model: TransformerLM, origin: str, evaluation: Mapping[str, Any] | None, *, has_tokenizer: bool
) -> str:
    """Return the model card as Markdown with front matter. `evaluation` holds the results of this model, if known."""
    c = model.config
    trained = (
        "The gates of this model were trained with m."
        if model.gates_trained
        else "The gates of this model were not trained with m, so Tidal's engine does not use them."
    )
    rows = [
        ("parameters", f"{model.num_parameters:,}"),
        ("blocks × width, heads", f"{c.num_layers} × {c.d_model}, {c.num_heads}"),
        ("context", f"{c.context_length} tokens"),
        ("vocabulary", f"{c.vocab_size:,}" + (f" ({_vocabulary_origin(model)})" if has_tokenizer else "")),
        ("exported from", f"`{origin}`"),
        *_measured(evaluation or {}),
    ]
    if changed := c.changed_architecture():
        rows.insert(2, ("architecture", ", ".join(_option(name, value) for name, value in changed.items())))
    with_code = not c.is_nanochat
    use = USE if has_tokenizer else WITHOUT_TOKENIZER
    limits = LIMITS if with_code else LIMITS_WITHOUT_CODE
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"{HEAD}\n# {c.name} {c.version}\n\nA small language model trained with Tidal.\n\n| | |\n|---|---|\n{table}\n"
        + use.format(trust=TRUST if with_code else "", code=CODE if with_code else NO_CODE)
        + (MODULATION.format(trained=trained) if c.gates else NO_MODULATION)
        + limits.format(context=c.context_length)
    )


def _option(name: str, value: object) -> str:
    """Return an option of the architecture in words, such as `qk_norm` or `logit_softcap 15.0`."""
    return f"`{name}`" if value is True else f"no `{name}`" if value is False else f"`{name}` {value}"


def _vocabulary_origin(model: TransformerLM) -> str:
    """Return where the vocabulary comes from."""
    if model.vocabulary.is_gpt2:
        return "GPT-2 BPE"
    return f"byte-level BPE that was trained on the model's own text, `{model.vocabulary}`"


def _measured(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    numbers = [
        ("validation_loss", "validation loss", ".4f"),
        ("perplexity", "perplexity", ".2f"),
        ("bits_per_byte", "bits per byte", ".4f"),
    ]
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
