"""The C++ code computes the function of the model; a row has the same bits in any batch, with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import tiktoken
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.generation import Backend, DecodingEngine, DecodingModel
from common.generation.native import build, library
from common.model import TransformerLM
from tests.unit.common.generation.conftest import tiny_model
from tests.unit.common.generation.cuda.batches import generate_texts
from tests.unit.common.model.architectures import ALONE, GATED, MODERN

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="there is no C++ compiler")
ODD = {"d_model": 44, "num_heads": 2, "ffn_dim": 37}
"""Sizes that fill no vector and no panel."""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    assert build.build_library() is None
    library.load.cache_clear()
    torch.set_num_threads(1)


def native(model: TransformerLM, precision: str = "float32") -> DecodingModel:
    packed = DecodingModel(model, precision=precision, backend=Backend.NATIVE)
    assert packed.effective_backend == "native"
    return packed


class EightBits(nn.Module):
    """A linear layer that rounds the weights of each output and the inputs of each row to 8 bits."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(_rounded(layer.weight.detach())), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(_rounded(x), self.weight, self.bias)


def _rounded(rows: Tensor) -> Tensor:
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return (rows / scale).round() * scale


def in_eight_bits(model: TransformerLM) -> TransformerLM:
    """Return a copy of the model whose linear layers are `EightBits`."""
    copy = deepcopy(model)
    for module in list(copy.modules()):
        for name, child in module.named_children():
            inside_gate = any(child is layer for gate in copy.gates for layer in gate.modules())
            if isinstance(child, nn.Linear) and not inside_gate:
                setattr(module, name, EightBits(child))
    return copy


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("options", [*ALONE, MODERN, GATED, ODD], ids=str)
def test_logits_are_those_of_the_model(options: dict[str, Any], precision: str) -> None:
    model = tiny_model(context_length=40, gates_trained=options.get("gates", True), **options)
    expected_model = model if precision == "float32" else in_eight_bits(model)
    packed = native(model, precision)
    ids = torch.randint(257, (3, 9), generator=torch.Generator().manual_seed(1))
    m, gated = torch.tensor([0.3, 0.3, 0.3]), torch.tensor([True, True, True])
    modulation = m[:, None] if model.config.gates else None
    cache, reference = packed.new_cache(3), model.new_cache(3)
    packed.prefill(ids[:, :4], [4, 4, 4], cache, 0)
    expected_model.prefill(ids[:, :4], reference)
    # Where a number lies between two steps of 8 bits, rounding of float32 may choose the other one.
    tolerance = 2e-5 if precision == "float32" else 2e-2
    for t in range(4, 9):
        expected, state = expected_model.decode_one_token(ids[:, t], reference, modulation)
        found, hidden = packed.decode(ids[:, t], cache, packed.gate_scales(m, gated))
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(hidden, state, atol=tolerance, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("options", [MODERN, GATED, ODD], ids=str)
def test_a_sequence_has_the_same_bits_in_any_batch_and_with_any_threads(
    options: dict[str, Any], precision: str
) -> None:
    """Prompts of different lengths, together more than one part of a pass, are read and continued with gates."""
    model = native(tiny_model(context_length=300, gates_trained=options.get("gates", True), **options), precision)
    lengths = [7, 230, 1, 101, 12, 3, 2]
    prompts = [[(7 * token + row) % 256 for token in range(length)] for row, length in enumerate(lengths)]
    padded = torch.tensor([[*prompt, *[0] * (230 - len(prompt))] for prompt in prompts])
    m = torch.linspace(0, 1, 7)
    gated = torch.tensor([True, False, True, True, True, False, True])
    together, own = model.new_cache(7), [model.new_cache() for _ in prompts]
    torch.set_num_threads(2)
    first, _ = model.prefill(padded, lengths, together, 0)
    steps = [model.decode(torch.full((7,), token), together, model.gate_scales(m, gated))[0] for token in range(20)]
    torch.set_num_threads(1)
    for row, (prompt, cache) in enumerate(zip(prompts, own, strict=True)):
        [alone], _ = model.prefill(torch.tensor([prompt]), [len(prompt)], cache, 0)
        assert torch.equal(alone, first[row])
        for token in range(20):
            scales = model.gate_scales(m[row : row + 1], gated[row : row + 1])
            [alone], _ = model.decode(torch.tensor([token]), cache, scales)
            assert torch.equal(alone, steps[token][row])


def test_texts_of_all_modes_are_those_of_pytorch(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(context_length=40, gates_trained=True)
    texts = [
        generate_texts(DecodingEngine(DecodingModel(model, backend=backend)), tokenizer, 2, joins=25)
        for backend in ("native", "torch")
    ]
    for ours, expected in zip(*texts, strict=True):
        assert ours.result.token_ids == expected.result.token_ids
        assert ours.result.truncated == expected.result.truncated


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_row_that_is_not_finite_changes_no_other_row(precision: str) -> None:
    model = tiny_model()
    expected, broken = native(model, precision), deepcopy(model)
    broken.token_embeddings.weight.data[5, 3] = float("nan")
    broken.token_embeddings.weight.data[6, 3] = float("inf")
    logits = []
    for packed, tokens in ((expected, [1, 2, 3]), (native(broken, precision), [1, 5, 3]), (native(broken), [1, 6, 3])):
        cache = packed.new_cache(3)
        packed.prefill(torch.tensor([[9], [9], [9]]), [1, 1, 1], cache, 0)
        logits.append(packed.decode(torch.tensor(tokens), cache, None)[0])
    plain, with_nan, with_infinity = logits
    assert torch.equal(plain[[0, 2]], with_nan[[0, 2]])
    assert with_nan[1].isnan().all() and with_infinity[1].isnan().all()


def test_a_full_slot_is_refused() -> None:
    packed = native(tiny_model(context_length=8))
    cache = packed.new_cache()
    packed.prefill(torch.tensor([[1] * 8]), [8], cache, 0)
    with pytest.raises(ValueError, match="a cache slot is full with 8 positions"):
        packed.decode(torch.tensor([1]), cache, None)


def test_a_forked_process_computes_the_same() -> None:
    """The threads of the library do not exist in a forked process, which therefore starts its own."""
    program = """
import os, torch
from tests.unit.common.generation.conftest import tiny_model
from common.generation import DecodingModel
torch.set_num_threads(2)
model = DecodingModel(tiny_model(), backend="native")
prefill = lambda: model.prefill(torch.tensor([[1, 2, 3]] * 9), [3] * 9, model.new_cache(9), 0)[0]
expected = prefill()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(prefill(), expected) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_auto_falls_back_to_pytorch_and_logs_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "missing.so")
    library.load.cache_clear()
    try:
        assert DecodingModel(tiny_model(), backend="auto").effective_backend == "torch"
        with pytest.raises(ConfigError, match="it was not compiled; `make install` compiles it"):
            DecodingModel(tiny_model(), backend="native")
    finally:
        library.load.cache_clear()


def test_a_processor_without_avx2_gets_pytorch_and_one_line_in_the_log() -> None:
    program = """
from tests.unit.common.generation.conftest import tiny_model
from common.generation import DecodingModel
from common.logging import configure
configure("test")
print([str(DecodingModel(tiny_model(), backend="auto").effective_backend) for _ in range(2)])
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert "['torch', 'torch']" in done.stdout, done.stderr
    assert (done.stdout + done.stderr).count("it needs a processor with AVX2, and PyTorch reports DEFAULT") == 1


def test_a_missing_or_failing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build_library() == "there is no C++ compiler"
    monkeypatch.setenv("CXX", "false")
    assert str(build.build_library()).endswith("false failed: exit status 1")
    assert list(tmp_path.iterdir()) == []
