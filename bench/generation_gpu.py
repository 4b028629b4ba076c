"""Measure the tokens per second of the generation engine on a GPU.

    python -m bench.generation_gpu [--quick] [--json]

The default model in bfloat16 generates 200 tokens from prompts of 12 tokens, with top-k 50, repetition penalty 1.2 and
temperature 0.8. Each batch size is measured with steps replayed as CUDA graphs, with compiled steps (torch.compile)
replayed as CUDA graphs, and with steps launched kernel by kernel. The references are `transformers.generate` with a
GPT-2 of the same shape in bfloat16, and the physical limit of the GPU. A token counts once it and its statistics are in
host memory; the rows "whole engine" also include the work in Python (detokenization, stop strings, trajectories). The
physical limit of a step is the larger of two times: the time to move its bytes (weights, keys and values, logits) at
the measured memory bandwidth, and the time of its operations at the measured rate of matrix products. Without a GPU the
benchmark prints a message and measures nothing. Compilation takes a minute or two per batch size; --quick omits it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.generation import PROMPT_TOKENS, SAMPLING, default_model, make_prompts, peer_model
from bench.report import Row, main
from common.data import load_tokenizer
from common.generation import Continuation, DecodingModel, DeviceEngine, GenerationSettings
from common.generation.cuda.batch import StaticBatch

NEW_TOKENS = 200
BATCHES = (1, 64, 512, 1024)
COMPILED_BATCHES = (1, 1024)
"""The batch sizes that are also measured with torch.compile: only two, because compilation takes long."""
SINGLE_TARGET, BATCH_TARGET = 4000.0, 500_000.0
"""The tokens/s required on an H200, for batch size 1 and for the fastest batch size."""
PEER_BATCHES = (1, 64, 512)


def run(quick: bool) -> list[Row]:
    """Measure all batch sizes, or with `quick` only 1 and 64 and no compiled steps. Return no rows without a GPU."""
    if not torch.cuda.is_available():
        print("there is no CUDA device, so nothing is measured", file=sys.stderr)
        return []
    device = torch.device("cuda", torch.cuda.current_device())
    torch.manual_seed(0)
    model = DecodingModel(default_model().to(device), precision="bfloat16")
    bandwidth, rate = memory_bandwidth(device), product_rate(device)
    print_progress(
        f"{torch.cuda.get_device_name(device)}: {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.0f} TFLOP/s in bfloat16"
    )
    rows: list[Row] = []
    best = 0.0
    for batch in BATCHES[:2] if quick else BATCHES:
        limit = batch / step_seconds(model, batch, bandwidth, rate)
        graphs, times = tokens_per_second(model, batch)
        plain, _ = tokens_per_second(model, batch, graphs=False)
        print_progress(f"batch {batch}: time of a step {histogram(times)}")
        fastest = graphs
        rows.append(row(f"GPU, batch {batch}, CUDA graphs", graphs, plain, "kernel by kernel", 1.0))
        if batch in COMPILED_BATCHES and not quick:
            compiled, times = tokens_per_second(model, batch, compiled=True)
            print_progress(f"batch {batch}, compiled: time of a step {histogram(times)}")
            rows.append(row(f"GPU, batch {batch}, compiled", compiled, graphs, "CUDA graphs", 1.0))
            fastest = max(graphs, compiled)
        best = max(best, fastest)
        rows.append(row(f"GPU, batch {batch}, fastest mode", fastest, limit, "physical limit", 0.0))
        if batch == 1:
            rows.append(row("GPU, batch 1", fastest, SINGLE_TARGET, "required on an H200", 1.0))
        texts = texts_per_second(model, batch)
        if batch in PEER_BATCHES:
            peer = peer_tokens_per_second(device, batch)
            rows.append(row(f"GPU, batch {batch}, whole engine", texts, peer, "transformers generate", 2.5))
        else:
            rows.append(row(f"GPU, batch {batch}, whole engine", texts, fastest, "steps only", 0.0))
    if not quick:
        rows.append(row("GPU, fastest batch size", best, BATCH_TARGET, "required on an H200", 1.0))
    return rows


def row(name: str, ours: float, reference: float, reference_name: str, bound: float) -> Row:
    """Return a row in tokens/s. A row with `bound` 0 only reports its ratio and cannot fail."""
    return Row(name, "tokens/s", ours, reference, reference_name, bound, "at least")


def print_progress(line: str) -> None:
    """Print a line to standard error, for progress and results that do not fit into the table."""
    print(line, file=sys.stderr, flush=True)


def tokens_per_second(
    model: DecodingModel, batch: int, *, graphs: bool = True, compiled: bool = False
) -> tuple[float, list[float]]:
    """Return the tokens/s and the seconds of each step.

    Runs two rounds and measures only the second, because the first one also captures and compiles the steps.
    """
    settings = [GenerationSettings(max_tokens=NEW_TOKENS, ignore_end_of_text=True, **SAMPLING)] * batch
    prompts, owners, times = make_prompts(batch), list(range(batch)), list[float]()
    rows = StaticBatch(model, slots=batch, graphs=graphs, compiled=compiled)
    speed = 0.0
    for number in range(2):
        rows.join(owners, settings, owners, prompts, prompts)
        torch.cuda.synchronize()
        started = last = time.perf_counter()
        steps, times = 0, []
        while rows.can_launch or rows.in_flight:
            while rows.can_launch and len(rows.in_flight) < 4:
                rows.launch()
            rows.collect_oldest()
            steps += 1
            now = time.perf_counter()
            times.append(now - last)
            last = now
        speed = batch * steps / (last - started)
        rows.remove(owners)
        print_progress(
            f"batch {batch}{', compiled' if compiled else '' if graphs else ', kernel by kernel'}: round {number + 1}"
        )
    return speed, times


def texts_per_second(model: DecodingModel, batch: int) -> float:
    """Return the tokens/s of the whole engine, including its work in Python, in the second of two rounds."""
    engine, tokenizer, speed = DeviceEngine(model, slots=batch), load_tokenizer(), 0.0
    settings = GenerationSettings(max_tokens=NEW_TOKENS, ignore_end_of_text=True, **SAMPLING)
    for _ in range(2):
        choices = [
            Continuation(
                prompt,
                settings,
                vocab_size=model.config.vocab_size,
                gates_trained=model.gates_trained,
                tokenizer=tokenizer,
                seed=number,
            )
            for number, prompt in enumerate(make_prompts(batch))
        ]
        engine.join(choices)
        torch.cuda.synchronize()
        started = time.perf_counter()
        while engine.active:
            engine.step()
        tokens = sum(len(choice.result.token_ids) for choice in choices)
        speed = tokens / (time.perf_counter() - started)
    return speed


def peer_tokens_per_second(device: torch.device, batch: int) -> float:
    """Return the tokens/s of `transformers.generate` in bfloat16, in the second of two rounds."""
    peer: Any = peer_model().to(device, torch.bfloat16)
    ids, speed = torch.tensor(make_prompts(batch), device=device), 0.0
    for _ in range(2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.inference_mode():
            out = peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                pad_token_id=0,
                use_cache=True,
                **SAMPLING,
            )
        torch.cuda.synchronize()
        speed = batch * (out.shape[1] - ids.shape[1]) / (time.perf_counter() - started)
    return speed


def memory_bandwidth(device: torch.device) -> float:
    """Copy 1 GiB in GPU memory and return the bytes per second, read plus written."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def product_rate(device: torch.device) -> float:
    """Return the floating-point operations per second of a bfloat16 product of 8192 × 8192 matrices."""
    size = 8192
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    right = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / seconds_of(lambda: torch.mm(left, right))


def seconds_of(work: Callable[[], object], times: int = 20) -> float:
    """Return the median seconds of `times` calls of `work`, measured by CUDA events."""
    work()
    make_event: Any = torch.cuda.Event
    found: list[float] = []
    for _ in range(times):
        start, end = make_event(enable_timing=True), make_event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def step_seconds(model: DecodingModel, batch: int, bandwidth: float, rate: float) -> float:
    """Return the physical limit in seconds for the step after which half of the new tokens are generated."""
    c = model.config
    layer = 4 * c.d_model * c.d_model + 2 * c.d_model * c.ffn_dim
    multiplied = c.num_layers * layer + c.d_model * c.vocab_size
    positions = PROMPT_TOKENS + NEW_TOKENS // 2
    cached = batch * positions * c.num_layers * 2 * c.d_model
    # Weights, keys and values are bfloat16. Logits are float32, written once and read once.
    read = 2 * multiplied + 2 * cached + 2 * 4 * batch * c.vocab_size
    return max(read / bandwidth, 2 * batch * (multiplied + positions * c.num_layers * 2 * c.d_model) / rate)


def histogram(times: list[float]) -> str:
    """Return a text with quantiles of `times` (seconds per step) in microseconds."""
    cuts = statistics.quantiles(times, n=100)
    return (
        ", ".join(f"p{at} {cuts[at - 1] * 1e6:.0f} µs" for at in (10, 50, 90, 99))
        + f", worst {max(times) * 1e6:.0f} µs"
    )


if __name__ == "__main__":
    main(run, __doc__)
