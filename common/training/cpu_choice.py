"""Chooses precision and compilation of a training on a CPU by measuring them before the first step.

bf16 is faster than float32 only on processors with instructions for it (AVX512-BF16, AMX); on others it takes ten times
as long, so a short pass comes first and ends the trial there. torch.compile fuses what the blocks compute between their
matrix products, but takes `COMPILE_SECONDS` or more, and the gain depends on the model. So both are tried on random
tokens, and the faster way is used. The state of all random numbers is restored afterwards. A checkpoint stores the
choice, and a resumed training keeps it.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import time
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from common.config.lm import TrainingConfig
from common.model import TransformerLM
from common.training.device import ComputeConfig
from common.training.hooks import StopRequest, TrainingHooks
from common.training.loading import StoppedWhileLoading
from common.training.loss import summed_loss
from common.training.random_state import capture_random_state, restore_random_state

COMPILE_SECONDS = 30.0
"""About the time in seconds that torch.compile takes for the blocks of a model on two cores."""
COMPILE_TIMES = 10
"""A training is compiled only if it takes longer than this many times the compilation and its measurement."""
LEAST_SECONDS = 60.0
"""A training that is expected to take less time, in seconds, is not measured."""
LEAST_GAIN = 0.03
"""Share of the time that bf16 or compilation must save to be used; smaller differences are noise."""
PROBE_TOKENS = 64
"""Most tokens of the first passes in float32 and bf16."""
PROBE_LIMIT = 2.0
"""If the first pass in bf16 takes more than this many times that in float32, bf16 is not measured any further."""
DUMMY_TOKENS = 1024
"""Most tokens of a measured pass, unless a single sequence is longer."""
PASSES = 3
"""Number of passes of which the median counts."""


@dataclass(frozen=True)
class Workload:
    """What the training will compute."""

    micro_batch: int
    """Number of sequences of a micro-batch."""
    length: int
    """T of the sequences."""
    micro_batches: int
    """Number of micro-batches of the whole training."""
    modulated: bool = False
    """Whether some micro-batches have a modulation."""


def choose_on_cpu(
    model: TransformerLM,
    compute: ComputeConfig,
    config: TrainingConfig,
    work: Workload,
    hooks: TrainingHooks,
    *,
    stored: bool,
    obeyed: Collection[StopRequest] = (),
) -> ComputeConfig:
    """Return `compute` with the precision and compilation to use, and compile the model's blocks if they are compiled.

    `stored` means that a checkpoint determined both in `compute`; then nothing is measured. Otherwise only settings
    that are `auto` are measured. Reports the event "compute" with the choice and its reasons. Weights and random states
    are unchanged, and no gradients are left. Raises StoppedWhileLoading on a request in `obeyed`, which is noticed
    between two passes.
    """
    random = capture_random_state()
    trial = _Trial(model, work, hooks, obeyed)
    automatic = [] if stored else [name for name in ("precision", "compile") if getattr(config, name) == "auto"]
    reasons: dict[str, str] = {}
    try:
        longest = _longest(trial, compute, config) if automatic else 0.0
        if longest < LEAST_SECONDS:
            reasons = dict.fromkeys(automatic, f"not measured: the training takes {longest:.1f} s at most")
            automatic = []
        if "precision" in automatic:
            compute, reasons["precision"] = _choose_precision(trial, compute)
        if compute.compiles:
            compute, reason = _compile(trial, compute, hooks, required=config.compile == "on")
            reasons["compile"] = reason or ("kept from the checkpoint" if stored else "training.compile is on")
        elif "compile" in automatic:
            compute, reasons["compile"] = _choose_compilation(trial, compute, config, hooks, longest)
    finally:
        model.zero_grad(set_to_none=True)
        restore_random_state(random)
    hooks.event("compute", precision=compute.precision, compiled=compute.compiles, **_named(reasons))
    return compute


def compiler_problem() -> str | None:
    """Return why torch.compile cannot build code for the CPU on this machine, or None if it can."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if any(shutil.which(name) for name in names):
        return None
    return f"no C++ compiler ({', '.join(names)}) was found"


class _Trial:
    """Runs forward and backward passes over random tokens."""

    def __init__(
        self, model: TransformerLM, work: Workload, hooks: TrainingHooks, obeyed: Collection[StopRequest]
    ) -> None:
        self.model, self.work = model, work
        self._hooks, self._obeyed = hooks, obeyed
        self._small = max(1, min(work.micro_batch, DUMMY_TOKENS // work.length))

    def probe(self, compute: ComputeConfig) -> float:
        """Return the seconds of the second of two passes over at most `PROBE_TOKENS` tokens."""
        length = min(self.work.length, PROBE_TOKENS)
        self.run(compute, 1, length=length)
        return self.run(compute, 1, length=length)

    def measure(self, compute: ComputeConfig) -> float:
        """Return the median seconds of passes over at most `DUMMY_TOKENS` tokens, after one that is not counted."""
        self.run(compute, self._small)
        return statistics.median(self.run(compute, self._small) for _ in range(PASSES))

    def whole(self, small: float) -> float:
        """Return the expected seconds of a whole micro-batch from those of a small pass."""
        return small * self.work.micro_batch / self._small

    def run(
        self,
        compute: ComputeConfig,
        sequences: int | None = None,
        *,
        length: int | None = None,
        modulated: bool = False,
    ) -> float:
        """Return the seconds of one pass over `sequences` sequences of `length` tokens, by default a micro-batch."""
        self._hooks.wait_while_suspended()
        request = self._hooks.requested_stop()
        if request is not None and request in self._obeyed:
            raise StoppedWhileLoading(request)
        rows = self.work.micro_batch if sequences is None else sequences
        ids = torch.randint(self.model.config.vocab_size, (rows, (length or self.work.length) + 1))
        modulation: Tensor | None = torch.rand(rows, 1) if modulated else None
        start = time.perf_counter()
        with compute.autocast():
            loss = summed_loss(self.model, ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), modulation)
        torch.autograd.backward(loss)
        return time.perf_counter() - start


def _longest(trial: _Trial, compute: ComputeConfig, config: TrainingConfig) -> float:
    """Return more seconds than the training is likely to take, from one pass over one sequence.

    torch starts its threads in this pass, so it is slower than the next ones.
    """
    seconds = trial.work.micro_batches * trial.work.micro_batch * trial.run(compute, 1)
    return min(seconds, config.max_seconds or math.inf)


def _choose_precision(trial: _Trial, compute: ComputeConfig) -> tuple[ComputeConfig, str]:
    """Measure float32 against bf16; return the choice and its reason in words."""
    other = replace(compute, precision="bf16")
    float32, bf16 = trial.probe(compute), trial.probe(other)
    if bf16 <= PROBE_LIMIT * float32:
        float32, bf16 = trial.measure(compute), trial.measure(other)
    figures = f"a pass takes {float32:.3f} s in float32 and {bf16:.3f} s in bf16"
    if bf16 < (1.0 - LEAST_GAIN) * float32:
        return other, f"bf16: {figures}"
    return compute, f"float32: {figures}"


def _choose_compilation(
    trial: _Trial, compute: ComputeConfig, config: TrainingConfig, hooks: TrainingHooks, longest: float
) -> tuple[ComputeConfig, str]:
    """Compile the blocks if the training is long enough; return the choice and its reason in words."""
    if longest < COMPILE_TIMES * COMPILE_SECONDS:
        needed = COMPILE_TIMES * COMPILE_SECONDS
        return compute, f"off: the training takes {longest:.0f} s at most, and compiling pays from {needed:.0f} s on"
    whole = trial.whole(trial.measure(compute))
    expected = min(trial.work.micro_batches * whole, config.max_seconds or math.inf)
    needed = COMPILE_TIMES * (COMPILE_SECONDS + (2 * PASSES + 2) * whole)
    if expected < needed:
        return compute, f"off: the training takes about {expected:.0f} s, and compiling pays from {needed:.0f} s on"
    if (problem := compiler_problem()) is not None:
        return compute, f"off: {problem}"
    eager = statistics.median(trial.run(compute) for _ in range(PASSES))
    compute, reason = _compile(trial, replace(compute, compiles=True), hooks, required=False)
    if not compute.compiles:
        return compute, reason
    compiled = statistics.median(trial.run(compute) for _ in range(PASSES))
    figures = f"a micro-batch takes {eager:.3f} s eagerly and {compiled:.3f} s compiled"
    if compiled < (1.0 - LEAST_GAIN) * eager:
        return compute, f"on: {figures}"
    trial.model.use_compiled_blocks(False)
    return replace(compute, compiles=False), f"off: {figures}"


def _compile(
    trial: _Trial, compute: ComputeConfig, hooks: TrainingHooks, *, required: bool
) -> tuple[ComputeConfig, str]:
    """Compile the blocks for the shape of a micro-batch, without modulation and, if the training has it, with it.

    Return `compute`, which is eager if that is impossible, and the reason in this case. With `required`, errors of the
    compiler are raised.
    """
    problem = compiler_problem()
    if problem is not None and not required:
        return replace(compute, compiles=False), f"off: {problem}"
    hooks.phase("compile")
    torch.compiler.set_stance("default")
    try:
        trial.model.use_compiled_blocks(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler reads .grad of intermediate results, which warns
            for modulated in (False, True) if trial.work.modulated else (False,):
                trial.run(compute, modulated=modulated)
    except StoppedWhileLoading:
        raise
    except Exception as error:  # the compiler's exceptions have no common class
        if required:
            raise
        trial.model.use_compiled_blocks(False)
        return replace(compute, compiles=False), f"off: torch.compile failed ({_first_line(error)})"
    # The last micro-batch of an epoch may be smaller; it is computed eagerly instead of being compiled as well.
    torch.compiler.set_stance("eager_on_recompile")
    return compute, ""


def _named(reasons: Mapping[str, str]) -> dict[str, Any]:
    return {f"{setting}_reason": reason for setting, reason in reasons.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
