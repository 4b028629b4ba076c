"""Loads an exported folder with transformers, in a process without Tidal, and saves what the model computes.

Usage: `in_transformers.py FOLDER INPUTS RESULTS`. INPUTS contains token ids, modulations and lengths.
"""

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, inputs_path, results_path = sys.argv[1:]
given = torch.load(inputs_path)
ids, m = given["ids"], given["m"]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
results: dict[str, Any] = {"training": model.training}


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sequences, cut to `lengths` and padded on the given side, and their attention mask."""
    row, mask = torch.full_like(ids, 7), torch.zeros_like(ids)
    for n, length in enumerate(given["lengths"]):
        place = slice(ids.shape[1] - length, None) if side == "left" else slice(0, length)
        row[n, place], mask[n, place] = ids[n, :length], 1
    return row, mask


with torch.no_grad():
    results["plain"] = model(ids).logits
    results["gated"] = model(ids, modulation=m).logits
    results["one number"] = model(ids, modulation=0.25).logits
    for side in ("left", "right"):
        row, mask = padded(side)
        for name, modulation in (("plain", None), ("gated", m)):
            results[f"{side} {name}"] = model(row, attention_mask=mask, modulation=modulation).logits
    cache = model(ids[:, :5], modulation=m, use_cache=True).past_key_values
    results["in parts"] = model(ids[:, 5:], modulation=m, past_key_values=cache).logits
    labels = ids.clone()
    labels[0, :4] = -100
    results["loss"] = model(ids, labels=labels).loss
    results["hidden"] = model(ids, output_hidden_states=True).hidden_states[-1]

greedy = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 1.0}
row, mask = padded("left")
results["greedy"] = model.generate(row, attention_mask=mask, **greedy)[:, -12:]
results["greedy gated"] = model.generate(row, attention_mask=mask, modulation=m, **greedy)[:, -12:]
results["greedy without cache"] = model.generate(row, attention_mask=mask, use_cache=False, **greedy)[:, -12:]
results["several"] = model.generate(row, attention_mask=mask, modulation=m, num_return_sequences=3, max_new_tokens=2)

results["texts"] = [tokenizer(text)["input_ids"] for text in given["texts"]]
results["decoded"] = [tokenizer.decode(tokens) for tokens in results["texts"]]
results["batch"] = dict(tokenizer(["The cat", "Once upon a time"], padding=True))
results["length"] = tokenizer.model_max_length

for name, call in {
    "too long": lambda: model(torch.zeros(1, 41, dtype=torch.long)),
    "two shapes": lambda: model(ids, modulation=torch.ones(5, 1)),
    "no cache": lambda: model.generate(ids, modulation=0.5, use_cache=False, max_new_tokens=2),
}.items():
    try:
        call()
    except ValueError as error:
        results[name] = str(error)

model.train()
model(ids, labels=ids).loss.backward()
results["gradient"] = model.token_embeddings.weight.grad.abs().sum()
model.eval()
model.save_pretrained(f"{folder}-again")
tokenizer.save_pretrained(f"{folder}-again")
again = AutoModelForCausalLM.from_pretrained(f"{folder}-again", trust_remote_code=True)
with torch.no_grad():
    results["again"] = again(ids).logits
    half = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    results["bfloat16 tables"] = half.rope_cos
    results["bfloat16"] = half(ids).logits
results["tidal modules"] = [
    name for name in sys.modules if name.split(".")[0] in ("common", "services", "tidal_client")
]
torch.save(results, results_path)
