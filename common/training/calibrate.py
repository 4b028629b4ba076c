"""Measures the calibration of this machine (`common.prediction.calibration`) with the real training code.

It times `summed_loss` and its backward pass for small models of several widths, lengths and depths. The difference of
two models that differ in one respect is the cost of that respect, so the cost of a call is separated from the cost of a
token, a block from the head, and attention from the rest of a block. The memory of the backward pass is counted
exactly, from the tensors that autograd saves. Random states are not restored: run this in a process of its own, with
`python -m services.trainer --calibrate`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from common.config.lm import TrainingConfig
from common.config.model import ModelConfig
from common.data.batch_encoder import BatchEncoder
from common.data.stories import STORY_COUNT, story
from common.data.vocabulary import gpt2_vocabulary
from common.files import flush
from common.generation import DecodingModel, generate
from common.model import TransformerLM
from common.prediction.calibration import BlockCost, Calibration, HeadCost, LinearCost, MemoryCost
from common.prediction.machine import memory_limit, this_machine
from common.prediction.model_size import matmul_parameters, parameters
from common.training.device import ComputeConfig, prepare_compute
from common.training.loss import summed_loss
from common.training.optimizer import clip_gradients, make_optimizer, take_step
from common.training.peak_memory import PeakMemory, present_bytes
from common.training.vocabulary_loss import LOGITS_PER_CHUNK
from tidal_client.vocabulary import GatingMode

SECONDS = 10.0
"""Time limit of the measurement in seconds. Widths that do not fit into it are left out, from the largest on."""
WIDTHS = (64, 256, 128, 512)
"""Widths at which a block is measured, the most important first. The first two are always measured."""
TIME_FOR_WIDTH = 4.0
"""Seconds that must be left for another width and for what is measured afterwards."""
HEAD_WIDTHS = (64, 384)
HEAD_VOCABULARY = 8192
"""Vocabulary at which the head is measured; its cost is proportional to the vocabulary."""
LITTLE = 512
"""Vocabulary of models whose head should cost little."""
LENGTH = 128
"""T of the sequences, except those that measure attention."""
SLOW_SECONDS = 0.25
"""A run that takes longer than this many seconds is measured only twice."""
FAST_SECONDS = 0.05
"""A run that takes at most this many seconds is measured three times as often as others."""
LARGEST_SLOWDOWN = 2.0
"""Larger ratios of a run's duration to the shortest one count as this ratio in the mean slowdown."""
_STORIES = 300


class _Bench:
    """Builds models and times them on one device."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        self.began = time.monotonic()
        # A GPU needs more tokens per call before its speed depends on their number.
        self.scale = 16 if compute.device.type == "cuda" else 1
        self._slowdowns: list[float] = []

    def model(self, **shape: int) -> TransformerLM:
        values = {"vocab_size": LITTLE, "num_layers": 1, "context_length": 1024, **shape}
        values.setdefault("num_heads", max(1, values["d_model"] // 32))
        values.setdefault("ffn_dim", 4 * values["d_model"])
        return TransformerLM(ModelConfig.model_validate(values)).to(self.compute.device).train()

    def left(self) -> float:
        return SECONDS - (time.monotonic() - self.began)

    def training(self, model: TransformerLM, tokens: int, length: int = LENGTH, repeats: int = 2) -> float:
        """Return the seconds of a forward and backward pass of `tokens` tokens in sequences of `length`."""
        return self.fastest(lambda: torch.autograd.backward(self._loss(model, tokens, length)), repeats)

    def evaluation(self, model: TransformerLM, tokens: int) -> float:
        """Return the seconds of a forward pass without gradients and dropout."""
        model.eval()
        try:
            with torch.no_grad():
                return self.fastest(lambda: self._loss(model, tokens, LENGTH), 2)
        finally:
            model.train()

    def fastest(self, run: Callable[[], Any], repeats: int) -> float:
        """Return the shortest duration of `run` in seconds; slow runs are repeated less often.

        Other processes and machines can only make a run slower, some runs several times, so the shortest duration
        varies least. By how much a run is slower on average, is in `slowdown`.
        """
        first = self._timed(run)
        if repeats == 0:
            return first
        repeats = 1 if first > SLOW_SECONDS else repeats if first > FAST_SECONDS else 3 * repeats
        taken = [self._timed(run) for _ in range(repeats)]
        best = min(first, *taken)
        self._slowdowns += [min(seconds / best, LARGEST_SLOWDOWN) for seconds in taken]
        return best

    def slowdown(self) -> float:
        """Return the mean ratio of the duration of a run to the shortest one, over all runs."""
        return statistics.mean(self._slowdowns)

    def _timed(self, run: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _loss(self, model: TransformerLM, tokens: int, length: int) -> torch.Tensor:
        rows = max(1, tokens // length)
        ids = torch.randint(model.config.vocab_size, (rows, length), device=self.compute.device)
        with self.compute.autocast():
            return summed_loss(model, ids, ids.roll(-1, 1))

    def _wait(self) -> None:
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)


def calibrate(data_dir: Path) -> Calibration:
    """Measure and return the calibration of this machine, in about `SECONDS` seconds. Writes and removes a file."""
    start_seconds = time.time() - psutil.Process().create_time()
    compute = prepare_compute(TrainingConfig())
    start_seconds += _first_call(_Bench(compute))
    bench = _Bench(compute)
    base = present_bytes(compute.device)
    activations = _activations(bench)
    heads, memory_head = _heads(bench, base, activations)
    attention = _attention(bench)
    blocks, shares = _blocks(bench, attention)
    decode = _decoding(bench)
    tokenise = _tokenising()
    update = _update(bench)
    slowdown = bench.slowdown()
    return Calibration(
        machine=this_machine(),
        measured_at=datetime.now(UTC),
        memory_bytes=memory_limit(),
        device_memory_bytes=_device_memory(compute.device),
        threads=compute.threads,
        precision=compute.precision,
        gemm_flops_per_second=gemm_rate(compute),
        blocks=tuple(cost.model_copy(update={"training": _times(cost.training, slowdown)}) for cost in blocks),
        heads=tuple(cost.model_copy(update={"training": _times(cost.training, slowdown)}) for cost in heads),
        attention_base=attention[0] * slowdown,
        attention_per_channel=attention[1] * slowdown,
        evaluation_block=shares[0],
        evaluation_head=shares[1],
        update_seconds_per_parameter=update * slowdown,
        decode_fixed=decode[0] * slowdown,
        decode_per_layer=decode[1] * slowdown,
        decode_per_weight=decode[2] * slowdown,
        start_seconds=start_seconds,
        tokenise_bytes_per_second=tokenise[0],
        bytes_per_token=tokenise[1],
        builtin_bytes=round(tokenise[2] * STORY_COUNT),
        disk_bytes_per_second=_disk(data_dir),
        memory=MemoryCost(base=base, **activations, **memory_head),
    )


def gemm_rate(compute: ComputeConfig) -> float:
    """Return the highest rate of a matrix product of two large square matrices in FLOPs per second.

    The number format is that of the training. A product of two N × N matrices takes 2 N³ FLOPs.
    """
    size = 8192 if compute.device.type == "cuda" else 1024
    kinds = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    left = torch.ones(size, size, device=compute.device, dtype=kinds[compute.precision])
    bench = _Bench(compute)
    best = bench.fastest(lambda: left @ left, 4)
    return 2.0 * size**3 / best


def _first_call(bench: _Bench) -> float:
    """Return by how many seconds the first optimiser and training pass of a process take longer than the second.

    Torch imports some of its modules only then. They stay in memory, and so does the vocabulary, which is loaded here.
    """
    gpt2_vocabulary()
    model, taken = bench.model(d_model=16), []
    for _ in range(2):
        start = time.perf_counter()
        make_optimizer(model, TrainingConfig())
        bench.training(model, LENGTH, repeats=0)
        taken.append(time.perf_counter() - start)
    return max(0.0, taken[0] - taken[1])


def _heads(bench: _Bench, base: int, activations: dict[str, float]) -> tuple[tuple[HeadCost, ...], dict[str, Any]]:
    """Return the costs of the head, and its memory.

    The peak of the memory in a backward pass is `base`, weights and gradients (8 bytes per parameter), activations, and
    what the loss needs: copies of the head's gradient (4 V D bytes each) and the logits. The peaks at two widths D give
    the number of copies and the bytes per logit.
    The widths ascend, because the peak that the system reports never falls.
    """
    costs, extra = [], []
    few, many = 256 * bench.scale, 1024 * bench.scale
    peak = PeakMemory(bench.compute.device)
    for width in HEAD_WIDTHS:
        model = bench.model(d_model=width, vocab_size=HEAD_VOCABULARY)
        little = bench.model(d_model=width)
        timed = {n: bench.training(model, n) for n in (few, many)}
        layer = activations["per_width"] + 4 * activations["per_ffn"] + LENGTH / 32 * activations["per_attention"]
        saved = many * width * (layer + activations["embedding"])
        extra.append(peak.observe() - base - 8 * (parameters(model.config) + parameters(little.config)) - saved)
        # `little` has the same single block, and a head so small that its time is about the time of the block.
        without = {n: bench.training(little, n) for n in (few, many)}
        head = {n: max(timed[n] - without[n], 0.05 * timed[n]) for n in timed}
        costs.append(HeadCost(width=width, vocabulary=HEAD_VOCABULARY, training=_line(head)))
        del model, little
    per_copy = 4.0 * HEAD_VOCABULARY
    copies = max(0.0, (extra[1] - extra[0]) / (per_copy * (HEAD_WIDTHS[1] - HEAD_WIDTHS[0])))
    logits = max(0.0, extra[0] - copies * per_copy * HEAD_WIDTHS[0])
    return tuple(costs), {
        "head_gradients": copies,
        "head_per_logit": logits / (many * HEAD_VOCABULARY),
        "head_logits": None if bench.compute.device.type == "cuda" else LOGITS_PER_CHUNK,
    }


def _activations(bench: _Bench) -> dict[str, float]:
    """Return the bytes that autograd saves for the backward pass, per token and unit of each dimension.

    A block saves N (a D + b F + c H T) bytes for N tokens. Two models that differ only in F give b, two that differ
    only in T give c.
    """

    def per_token(length: int = 32, **shape: int) -> float:
        return _saved_bytes(bench, bench.model(num_heads=2, **shape), length) / (4 * length)

    def block(length: int = 32, **shape: int) -> float:
        return per_token(length, num_layers=2, **shape) - per_token(length, **shape)

    plain = block(d_model=32, ffn_dim=64)
    per_ffn = (block(d_model=32, ffn_dim=128) - plain) / 64
    per_attention = (block(64, d_model=32, ffn_dim=64) - plain) / (2 * 32)
    per_width = (plain - 64 * per_ffn - 2 * 32 * per_attention) / 32
    outside = per_token(d_model=32, ffn_dim=64) - plain
    return {
        "per_width": per_width,
        "per_ffn": per_ffn,
        "per_attention": per_attention,
        "embedding": max(0.0, outside / 32),
    }


def _saved_bytes(bench: _Bench, model: TransformerLM, length: int) -> int:
    """Return the bytes of the tensors that a forward pass of four sequences saves, without parameters and tables."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # otherwise the next tensor could have the same address
        return tensor

    ids = torch.randint(model.config.vocab_size, (4, length), device=bench.compute.device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), bench.compute.autocast():
        model.hidden_states(ids)
    return sum(found.values())


def _attention(bench: _Bench) -> tuple[float, float]:
    """Return the seconds per token, head and position of attention at K = 0, and their increase per channel of K."""
    few, many, tokens = 64, 512, 512 * bench.scale
    per_head = {}
    for heads in (4, 2):
        deep = bench.model(d_model=128, num_heads=heads, ffn_dim=16, num_layers=3)
        short, long = (bench.training(deep, tokens, length, repeats=4) for length in (few, many))
        slope = (long - short) / (many - few)
        per_head[128 // heads] = max(0.0, slope / (3 * tokens * heads))
    per_channel = max(0.0, (per_head[64] - per_head[32]) / 32)
    return max(0.0, per_head[32] - 32 * per_channel), per_channel


def _blocks(bench: _Bench, attention: tuple[float, float]) -> tuple[tuple[BlockCost, ...], tuple[float, float]]:
    """Return the costs of a block without the part of attention that grows with T, and two ratios.

    The ratios are the duration of a validation's forward pass to that of forward and backward pass in training: first
    for a block, then for the head.
    """
    costs: list[BlockCost] = []
    for width in WIDTHS:
        if len(costs) > 1 and bench.left() < TIME_FOR_WIDTH:
            break
        few, many = 256 * bench.scale, (512 if width > 256 else 1024) * bench.scale
        shallow, deep = bench.model(d_model=width), bench.model(d_model=width, num_layers=3)
        block = {n: (bench.training(deep, n) - bench.training(shallow, n)) / 2 for n in (few, many)}
        heads = width // 32
        per_position = heads * (attention[0] + attention[1] * 32)
        costs.append(
            BlockCost(width=width, training=_line({n: s - n * LENGTH * per_position for n, s in block.items()}))
        )
    tokens = 512 * bench.scale
    shallow, deep = bench.model(d_model=128), bench.model(d_model=128, num_layers=3)
    shares = [
        (bench.evaluation(deep, tokens) - bench.evaluation(shallow, tokens))
        / (bench.training(deep, tokens) - bench.training(shallow, tokens))
    ]
    model = bench.model(d_model=64, vocab_size=HEAD_VOCABULARY)
    shares.append(bench.evaluation(model, tokens) / bench.training(model, tokens))
    low, high = (min(1.0, max(0.1, share)) for share in shares)
    return tuple(sorted(costs, key=lambda cost: cost.width)), (low, high)


def _line(seconds: dict[int, float]) -> LinearCost:
    """Return the line through `seconds`, {number of tokens: seconds}. Noise must not give a negative cost."""
    (few, short), (many, long) = sorted(seconds.items())
    per_token = max((long - short) / (many - few), 0.5 * long / many)
    return LinearCost(fixed=max(0.0, long - per_token * many), per_token=per_token)


def _times(cost: LinearCost, factor: float) -> LinearCost:
    return LinearCost(fixed=cost.fixed * factor, per_token=cost.per_token * factor)


def _update(bench: _Bench) -> float:
    """Return the seconds per parameter of clipping and update."""
    model = bench.model(d_model=256, num_layers=2, vocab_size=8192)
    optimizer, scaler = make_optimizer(model, TrainingConfig()), bench.compute.scaler()

    def run() -> None:
        clip_gradients(model, optimizer, scaler, 1.0)
        take_step(optimizer, scaler)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient

    gradients = [torch.full_like(parameter, 1e-6) for parameter in model.parameters()]
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    return bench.fastest(run, 3) / model.num_parameters


def _decoding(bench: _Bench) -> tuple[float, float, float]:
    """Return the seconds per generated token: fixed, per layer, and per weight of a matrix product."""

    def per_token(**shape: int) -> tuple[float, int]:
        model = bench.model(vocab_size=gpt2_vocabulary().size, **shape).eval()
        packed, count = DecodingModel(model), 12

        def run() -> None:
            generate(packed, "Once", max_tokens=count, gating_mode=GatingMode.NONE, temperature=0.8, top_k=40, seed=1)

        return bench.fastest(run, 1) / count, matmul_parameters(model.config)

    thin, few = per_token(d_model=64)
    thick, many = per_token(d_model=192)
    deep, weights = per_token(d_model=64, num_layers=5)
    per_weight = max(0.0, (thick - thin) / (many - few))
    per_layer = max(0.0, (deep - thin - per_weight * (weights - few)) / 4)
    return max(0.0, thin - per_layer - per_weight * few), per_layer, per_weight


def _tokenising() -> tuple[float, float, float]:
    """Return for the built-in stories: bytes of text tokenised per second, bytes per token, and bytes per story."""
    encoder = BatchEncoder(gpt2_vocabulary())
    start = time.perf_counter()
    texts = [story(index) for index in range(_STORIES)]
    tokens = sum(len(ids) + 1 for ids in encoder.encode(texts))
    size = sum(len(text.encode()) for text in texts)
    return size / (time.perf_counter() - start), size / tokens, size / _STORIES


def _disk(data_dir: Path) -> float:
    """Return the rate in bytes per second at which a file of 16 MiB is written and flushed."""
    data_dir.mkdir(parents=True, exist_ok=True)
    content = bytes(1 << 24)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".calibration-") as folder:
        start = time.perf_counter()
        path = Path(folder) / "block"
        path.write_bytes(content)
        flush(path)
        return len(content) / (time.perf_counter() - start)


def _device_memory(device: torch.device) -> int | None:
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
