"""The analysis of given samples is exactly the same whether a trainer or the API computes it."""

from __future__ import annotations

import json
import statistics

import torch

from common.analysis import GeneratedSample, analysis_result
from common.config import AnalysisConfig, build
from common.data import gpt2_vocabulary
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from services.generator.wire import wire_reply
from services.trainer.trajectories import sample_of


def test_texts_of_a_job_and_of_the_api_give_the_same_report() -> None:
    torch.manual_seed(1)
    model = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, context_length=32)).eval()
    prompts = ["the cat", "a dog"]
    values = {"kind": "batch", "prompts": prompts, "gating_mode": "random", "bootstrap": True, "max_tokens": 9}
    config = build(AnalysisConfig, values, where="test")
    generations = [
        generate(model, prompt, max_tokens=9, gating_mode="random", seed=seed) for seed, prompt in enumerate(prompts)
    ]
    exact = [step.modulation for step in generations[0].trajectory if step.modulation is not None]
    rounded = [round(value, 6) for value in exact]
    assert exact != rounded
    tokenizer = gpt2_vocabulary().encoding
    sent = [json.loads(json.dumps(wire_reply(generation, tokenizer))) for generation in generations]
    from_api = [
        GeneratedSample(
            text=generation["text"],
            finish_reason=generation["finishReason"],
            token_ids=[token["id"] for token in generation["trajectory"]],
            token_texts=[token["text"] for token in generation["trajectory"]],
            modulation=[token["modulation"] for token in generation["trajectory"]],
        )
        for generation in sent
    ]
    of_the_job, of_the_api = (
        analysis_result(
            config, [[sample] for sample in samples], checkpoint="e/final", rl_checkpoint=None, elapsed_ms=1.0
        )
        for samples in ([sample_of(generation) for generation in generations], from_api)
    )
    assert of_the_job == of_the_api
    assert of_the_job["trajectories"][0]["samples"][0]["modulation"] == rounded
    assert of_the_job["trajectories"][0]["analysis"]["signalStats"]["modulation"]["mean"] == statistics.fmean(rounded)
