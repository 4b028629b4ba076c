"""`DeviceEngine`, run on the CPU, gives the same completions as `DecodingEngine`.

Its steps never wait for the device.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import tiktoken
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import CheckpointError
from common.generation import Continuation, DecodingEngine, DecodingModel, FinishReason, GenerationSettings
from common.generation.cpu import packed_linear
from common.generation.cuda import graph as cuda_graph
from common.generation.cuda.batch import StaticBatch
from common.generation.cuda.engine import DeviceEngine, new_engine
from common.generation.cuda.graph import warm_up
from common.generation.cuda.state import StaticState
from common.generation.cuda.step import static_step
from tests.unit.common.generation.conftest import END_OF_TEXT, VOCABULARY, tiny_model
from tests.unit.common.generation.cuda.batches import KINDS, batch_of, generate_texts

torch.set_num_threads(1)

HOST_WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2"}
FROM_HOST = {"lift_fresh", "lift_fresh_copy", "from_file"}
"""Operations that copy numbers from the host into a step. A capture forbids them, but allows `scalar_tensor`."""


@pytest.mark.parametrize(("gates_trained", "seed", "ahead"), [(False, 1, 1), (True, 2, 4), (False, 3, 7)])
def test_every_text_equals_that_of_the_cpu_engine(
    tokenizer: tiktoken.Encoding, gates_trained: bool, seed: int, ahead: int
) -> None:
    """Covers gating modes, filters, stop strings, full context windows, reused slots, and steps launched in advance."""
    model = DecodingModel(tiny_model(gates_trained=gates_trained, end_of_text_bias=9.0))
    plain = generate_texts(DecodingEngine(model), tokenizer, seed, joins=25)
    texts = generate_texts(DeviceEngine(model, ahead=ahead), tokenizer, seed, joins=25)
    assert {continuation.result.finish_reason for continuation in plain} == set(FinishReason)
    assert max(continuation.result.truncated for continuation in plain) > 24
    for actual, expected in zip(texts, plain, strict=True):
        assert actual.result.token_ids == expected.result.token_ids
        assert actual.result.text == expected.result.text
        assert actual.result.finish_reason == expected.result.finish_reason
        assert actual.result.truncated == expected.result.truncated
        assert actual.result.prompt_scores == expected.result.prompt_scores
        for a, b in zip(actual.result.trajectory, expected.result.trajectory, strict=True):
            assert (a.text, a.top_k) == (b.text, b.top_k)
            assert a.temperature == pytest.approx(b.temperature, abs=1e-5)
            assert a.top_p == pytest.approx(b.top_p, abs=1e-5)
            assert a.repetition_penalty == pytest.approx(b.repetition_penalty, abs=1e-5)
            if actual.settings.gating_mode == "fixed":
                assert a.top_k == b.top_k == actual.result.effective.top_k
            assert a.modulation == pytest.approx(b.modulation, abs=1e-5)
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
            assert a.entropy == pytest.approx(b.entropy, abs=1e-4)
            assert a.sampling_entropy == pytest.approx(b.sampling_entropy, abs=1e-4)
            assert [token for token, _ in a.alternatives] == [token for token, _ in b.alternatives]


class ForbiddenOperations(TorchDispatchMode):
    """A dispatch mode that fails on operations that wait for the device or copy numbers from the host.

    A captured step may contain neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.append(name)
        assert name not in HOST_WAITS | FROM_HOST, name
        if name in ("index", "index_put", "index_put_"):
            assert not any(index is not None and index.dtype is torch.bool for index in args[1]), "an index of booleans"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_neither_waits_for_the_device_nor_takes_numbers_from_the_host(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DecodingModel(tiny_model(gates_trained=True), precision=precision)
    batch = batch_of(model, [kind for kind in KINDS if kind.max_tokens])
    forbidden = ForbiddenOperations()
    # In inference mode, `forbidden` would not see the parts of composite operations.
    plainly = torch.no_grad()(inspect.unwrap(static_step))

    def watched(state: Any, shape: Any) -> None:
        assert all(
            (
                shape.top_log_probs,
                shape.full_distribution,
                shape.top_p_only,
                shape.logit_adjustments,
                shape.random_modulation,
                shape.gated,
            )
        )
        assert len(shape.policies) == 2
        with torch.inference_mode(False), forbidden:
            plainly(model, state, shape)

    monkeypatch.setattr(batch.steps, "run", watched)
    batch.launch()
    assert len(forbidden.seen) > 100
    assert "scalar_tensor" in forbidden.seen


def test_the_watch_fails_at_each_forbidden_operation() -> None:
    for fault in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x + torch.tensor([1.0, 2.0])):
        with pytest.raises(AssertionError), ForbiddenOperations():
            fault(torch.ones(2))


def test_warming_up_changes_nothing_that_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up runs of a step before its capture must not change the completions."""
    model = DecodingModel(tiny_model(gates_trained=True))
    settings = [kind for kind in KINDS if kind.max_tokens]
    quiet, disturbed = batch_of(model, settings), batch_of(model, settings)
    run = disturbed.steps.run

    def warm(state: Any, shape: Any) -> None:
        warm_up(lambda: static_step(model, state, shape), state, shape)
        run(state, shape)

    monkeypatch.setattr(disturbed.steps, "run", warm)
    for _ in range(7):
        for batch in (quiet, disturbed):
            batch.launch()
        expected, actual = quiet.collect_oldest(), disturbed.collect_oldest()
        assert torch.equal(actual.numbers, expected.numbers)
        assert actual.owners == expected.owners


def test_shapes_repeat_so_that_few_steps_have_to_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DecodingModel(tiny_model(context_length=256))
    batch, shapes = StaticBatch(model, slots=4), set()
    for owner in range(3):
        batch.join([owner], [GenerationSettings(max_tokens=240, top_k=5)], [owner], [[1, 2]], [[1, 2]])
    run = batch.steps.run
    monkeypatch.setattr(batch.steps, "run", lambda state, shape: (shapes.add(shape), run(state, shape)))
    while batch.can_launch:
        batch.launch()
        batch.collect_oldest()
    assert {(shape.slots, shape.span) for shape in shapes} == {(4, 32), (4, 64), (4, 128), (4, 256)}
    assert len(shapes) == 4


def test_a_text_without_finite_logits_fails_alone(tokenizer: tiktoken.Encoding) -> None:
    made = tiny_model()
    with torch.no_grad():
        made.token_embeddings.weight[7] = float("nan")
    model = DecodingModel(made)
    bad, good = (
        Continuation(
            prompt,
            GenerationSettings(max_tokens=3, top_k=top_k),
            vocab_size=VOCABULARY,
            gates_trained=False,
            tokenizer=tokenizer,
            seed=1,
        )
        for prompt, top_k in (([1, 7], None), ([1, 2], 1))
    )
    engine = DeviceEngine(model)
    engine.join([bad, good])
    assert engine.step() == [bad]
    assert isinstance(bad.error, CheckpointError)
    while engine.active:
        engine.step()
    assert good.error is None
    assert len(good.result.token_ids) == 3


def test_on_a_cpu_the_cpu_engine_is_chosen() -> None:
    assert isinstance(new_engine(DecodingModel(tiny_model())), DecodingEngine)
    assert END_OF_TEXT < VOCABULARY


def test_a_capture_that_fails_is_logged_once_and_steps_go_on(
    tokenizer: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DecodingModel(tiny_model())
    expected = batch_of(model, KINDS[:1])
    batch, warnings, tried = batch_of(model, KINDS[:1]), [], []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(batch.steps, "_graphs", True)
    monkeypatch.setattr(batch.steps, "_capture", refuse)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(cuda_graph.log, "warning", lambda line, **values: warnings.append((line, values)))
    for _ in range(3):
        batch.launch()
        expected.launch()
        assert torch.equal(batch.collect_oldest().numbers, expected.collect_oldest().numbers)
    assert len(tried) == 1
    [(line, values)] = warnings
    assert line.startswith("CUDA graphs are off")
    assert values == {"reason": "operation not permitted when stream is capturing"}


def test_bfloat16_between_the_layers_stays_close_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bfloat16 model runs without oneDNN's blocked weights, because these exist only on the CPU."""
    made = tiny_model(gates_trained=True)
    settings = [
        GenerationSettings(max_tokens=4, top_k=1, gating_mode="fixed"),
        GenerationSettings(max_tokens=4, top_k=1),
    ]
    hidden = []
    for precision in ("float32", "bfloat16"):
        batch = batch_of(DecodingModel(made, precision=precision), settings)
        states: list[StaticState] = []
        run = batch.steps.run
        monkeypatch.setattr(
            batch.steps, "run", lambda state, shape, run=run, states=states: (states.append(state), run(state, shape))
        )
        batch.launch()
        assert batch.collect_oldest().numbers[:, 0].tolist() == [131.0, 131.0]
        hidden.append(states[0].hidden)
        monkeypatch.setattr(packed_linear, "_blocks", lambda weight: None)
    torch.testing.assert_close(hidden[1], hidden[0], atol=0.05, rtol=0)
    assert not torch.equal(hidden[1], hidden[0])
