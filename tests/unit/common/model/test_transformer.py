"""The model's results equal those of the original project; decoding with the KV cache equals full forward passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from common.model import ModelConfig, TransformerLM
from tests.paths import PARITY

TINY = ModelConfig(vocab_size=61, d_model=24, num_layers=2, num_heads=3, ffn_dim=40, context_length=20, dropout=0.3)

torch.set_num_threads(1)


def tiny(seed: int = 0, gate_noise: float = 0.5) -> TransformerLM:
    """Return a seeded model with gates that react to modulation."""
    torch.manual_seed(seed)
    model = TransformerLM(TINY).eval()
    with torch.no_grad():
        for gate in model.gates:
            gate.net[-1].get_parameter("weight").normal_(std=gate_noise)
    return model


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((PARITY / "reference.json").read_text())
    return values


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(PARITY / "reference.safetensors")


@pytest.fixture(scope="module")
def original() -> TransformerLM:
    config = ModelConfig(vocab_size=331, d_model=48, num_layers=2, num_heads=4, ffn_dim=96, context_length=64)
    model = TransformerLM(config).eval()
    model.load_state_dict(torch.load(PARITY / "lm_small.pth", weights_only=True), strict=True)
    return model


def test_default_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert TransformerLM(ModelConfig()).num_parameters == 30_623_057


def test_new_weights_follow_the_specification() -> None:
    torch.manual_seed(0)
    model = TransformerLM(TINY.model_copy(update={"vocab_size": 2000}))
    assert model.token_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.output_projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.output_projection.bias.any()
    for gate in model.gates:
        assert not gate.net[-1].get_parameter("weight").any()
        assert (gate.net[-1].get_parameter("bias") == 2.0).all()


@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_logits_and_states_equal_the_originals(
    kind: str, original: TransformerLM, reference: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    ids = torch.tensor(reference["input_ids"])
    modulation = torch.tensor(reference["modulation"]).view(-1, 1) if kind == "gated" else None
    with torch.no_grad():
        torch.testing.assert_close(original(ids, modulation), tensors[f"logits_{kind}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            original.hidden_states(ids, modulation), tensors[f"hidden_{kind}"], atol=1e-5, rtol=0
        )


def test_cached_decoding_reaches_the_originals_gated_logits(
    original: TransformerLM, reference: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    ids = torch.tensor(reference["input_ids"])
    modulation = torch.tensor(reference["modulation"]).view(-1, 1)
    cache = original.new_cache(3)
    logits, _ = original.prefill(ids[:, :7], cache, modulation=modulation)
    torch.testing.assert_close(logits, tensors["logits_gated"][:, 6], atol=1e-5, rtol=0)
    for t in range(7, ids.shape[1]):
        logits, hidden = original.decode_one_token(ids[:, t], cache, modulation)
        torch.testing.assert_close(logits, tensors["logits_gated"][:, t], atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden, tensors["hidden_gated"][:, t], atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    steps=st.integers(0, 8),
    gated=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rows_of_different_length_decode_together_as_if_alone(
    lengths: list[int], steps: int, gated: bool, seed: int
) -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(seed)
    B = len(lengths)
    tokens = torch.randint(0, TINY.vocab_size, (B, 20), generator=generator)
    modulation = torch.rand(B, 1, generator=generator) if gated else None
    cache = model.new_cache(B)
    logits, _ = model.prefill(tokens[:, : max(lengths)], cache, torch.tensor(lengths), modulation)
    for step in range(steps):
        column = torch.tensor([int(tokens[row, length + step]) for row, length in enumerate(lengths)])
        logits, _ = model.decode_one_token(column, cache, modulation)
    assert cache.lengths.tolist() == cache.bounds == [length + steps for length in lengths]
    for row, length in enumerate(lengths):
        alone = model(
            tokens[row : row + 1, : length + steps], None if modulation is None else modulation[row : row + 1]
        )
        torch.testing.assert_close(logits[row], alone[0, -1], atol=2e-5, rtol=0)


def test_a_position_keeps_the_modulation_it_was_computed_with() -> None:
    model = tiny()
    token = torch.tensor([5])

    def last(first: float | None) -> Tensor:
        cache = model.new_cache(1)
        model.prefill(torch.tensor([[1, 2, 3]]), cache)
        model.decode_one_token(token, cache, None if first is None else torch.tensor([[first]]))
        return model.decode_one_token(token, cache, torch.tensor([[0.9]]))[0]

    assert not torch.allclose(last(0.1), last(0.9), atol=1e-4)
    assert not torch.allclose(last(None), last(0.9), atol=1e-4)


def test_one_row_is_replaced_while_the_others_continue() -> None:
    model = tiny()
    tokens = torch.randint(0, TINY.vocab_size, (3, 12))
    cache = model.new_cache(3)
    model.prefill(tokens[:, :6], cache)
    model.prefill(tokens[1:2, 6:9], cache, rows=[1])
    logits, _ = model.decode_one_token(tokens[:, 9], cache)
    complete = torch.cat((tokens[:, :6], tokens[:, 9:10]), dim=1)
    torch.testing.assert_close(logits[0], model(complete[0:1])[0, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[2], model(complete[2:3])[0, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1], model(tokens[1:2, 6:10])[0, -1], atol=1e-5, rtol=0)
    cache.reset([0])
    logits, _ = model.decode_one_token(tokens[:, 10], cache)
    torch.testing.assert_close(logits[0], model(tokens[0:1, 10:11])[0, -1], atol=1e-5, rtol=0)


def test_without_modulation_the_gates_change_nothing() -> None:
    model, other = tiny(gate_noise=0.1), tiny(gate_noise=5.0)
    ids = torch.randint(0, TINY.vocab_size, (2, 9))
    assert torch.equal(model(ids), other(ids))
    m = torch.full((2, 1), 0.5)
    assert not torch.allclose(model(ids, m), other(ids, m))


def test_a_later_token_never_changes_an_earlier_position() -> None:
    model = tiny()
    ids = torch.randint(0, TINY.vocab_size, (1, 20))
    changed = ids.clone()
    changed[0, 13:] = (changed[0, 13:] + 1) % TINY.vocab_size
    torch.testing.assert_close(model(ids)[:, :13], model(changed)[:, :13], atol=1e-6, rtol=0)
    assert not torch.allclose(model(ids)[:, 13:], model(changed)[:, 13:], atol=1e-3)


def test_dropout_acts_in_training_and_never_in_evaluation() -> None:
    model = tiny()
    ids = torch.randint(0, TINY.vocab_size, (2, 9))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_gates_come_in_the_order_of_the_originals_gate_files() -> None:
    model = tiny()
    first, second = model.blocks
    assert model.gates == [first.attn_gate, first.ffn_gate, second.attn_gate, second.ffn_gate]


@pytest.mark.parametrize(
    ("ids", "modulation", "finding"),
    [
        (torch.zeros(1, 21, dtype=torch.int64), None, r"\(1, 21\), expected \(batch, 1\.\.20\)"),
        (torch.zeros(1, 0, dtype=torch.int64), None, r"\(1, 0\)"),
        (torch.zeros(5, dtype=torch.int64), None, r"\(5,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2), r"modulation has shape \(2,\), expected \(2, 1\)"),
    ],
)
def test_a_wrong_shape_is_named(ids: Tensor, modulation: Tensor | None, finding: str) -> None:
    with pytest.raises(ValueError, match=finding):
        tiny()(ids, modulation)


def test_a_full_row_is_an_error_before_anything_is_written() -> None:
    model = tiny()
    cache = model.new_cache(2, capacity=8)
    model.prefill(torch.zeros(2, 8, dtype=torch.int64), cache, torch.tensor([8, 3]))
    before = cache.keys.clone()
    with pytest.raises(ValueError, match=r"rows \[0\] are full with 8 positions"):
        model.decode_one_token(torch.zeros(2, dtype=torch.int64), cache)
    assert torch.equal(before, cache.keys)
    with pytest.raises(ValueError, match="one prompt per row"):
        model.prefill(torch.zeros(1, 4, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match=r"capacity 21 is outside 1\.\.20"):
        model.new_cache(1, capacity=21)
