"""Loads exported folders with transformers, in a process without Tidal, and saves what the models compute.

Usage: `modern_in_transformers.py NANOCHAT TIDAL INPUTS RESULTS`. The folder NANOCHAT must need no remote code.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

nanochat, tidal, inputs_path, results_path = sys.argv[1:]
given = torch.load(inputs_path)
ids, m = given["ids"], given["m"]
lengths = given["lengths"]
results: dict[str, Any] = {"code": [path.name for path in Path(nanochat).glob("*.py")]}
greedy = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 1.0}
padded, mask = torch.full_like(ids, 7), torch.zeros_like(ids)
for n, length in enumerate(lengths):
    padded[n, ids.shape[1] - length :], mask[n, ids.shape[1] - length :] = ids[n, :length], 1

model = AutoModelForCausalLM.from_pretrained(nanochat)
tokenizer = AutoTokenizer.from_pretrained(nanochat)
results["class"] = type(model).__name__
results["texts"] = [tokenizer(text)["input_ids"] for text in given["texts"]]
with torch.no_grad():
    results["plain"] = model(ids).logits
    results["padded"] = model(padded, attention_mask=mask).logits
    cache = model(ids[:, :5], use_cache=True).past_key_values
    results["in parts"] = model(ids[:, 5:], past_key_values=cache).logits
results["greedy"] = model.generate(padded, attention_mask=mask, **greedy)[:, -12:]
results["greedy without cache"] = model.generate(padded, attention_mask=mask, use_cache=False, **greedy)[:, -12:]
model.save_pretrained(f"{nanochat}-again")
with torch.no_grad():
    results["again"] = AutoModelForCausalLM.from_pretrained(f"{nanochat}-again")(ids).logits

gated = AutoModelForCausalLM.from_pretrained(tidal, trust_remote_code=True)
with torch.no_grad():
    results["tidal plain"] = gated(ids).logits
    results["tidal gated"] = gated(ids, modulation=m).logits
    cache = gated(ids[:, :5], modulation=m, use_cache=True).past_key_values
    results["tidal in parts"] = gated(ids[:, 5:], modulation=m, past_key_values=cache).logits
results["tidal modules"] = [
    name for name in sys.modules if name.split(".")[0] in ("common", "services", "tidal_client")
]
torch.save(results, results_path)
