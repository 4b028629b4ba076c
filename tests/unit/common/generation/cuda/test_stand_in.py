"""The engine for accelerators with stand-ins for the device and for its graphs, on a machine without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import tiktoken
import torch

from common.generation import DecodingEngine, DecodingModel, DeviceEngine, GenerationSettings
from common.generation.cuda import graph as cuda_graph
from common.generation.cuda.batch import StaticBatch
from common.generation.cuda.state import StaticState
from common.generation.cuda.step import StepShape
from tests.gpu.engines import SETTINGS, texts
from tests.stand_in_device import StandInDevice
from tests.unit.common.generation.conftest import reacting_policy, tiny_model
from tests.unit.common.generation.cuda.batches import KINDS, batch_of, generate_texts
from tests.unit.common.generation.cuda.recorded_graph import RecordedGraph, install
from tests.unit.common.model.architectures import MODERN

torch.set_num_threads(1)


@pytest.mark.parametrize("architecture", [{}, MODERN], ids=str)
def test_joining_steps_and_leaving_do_not_wait_for_the_device(architecture: dict[str, Any]) -> None:
    with StandInDevice() as device:
        model = DecodingModel(tiny_model(gates_trained=not architecture, **architecture).to("cuda:0"))
        policy = reacting_policy().to("cuda:0")
        settings = [kind for kind in KINDS if kind.max_tokens and kind.policy is None and not kind.score_prompt]
        settings.append(GenerationSettings(max_tokens=40, gating_mode="learned", policy=policy, sample_actions=True))
        owners = list(range(len(settings)))
        prompts = [[number + 1, 5, 6] for number in owners]
        batch = StaticBatch(model, slots=len(settings), graphs=False)
        device.waits.clear()
        batch.join(owners[:-1], settings[:-1], owners[:-1], prompts[:-1], prompts[:-1])
        batch.launch()
        batch.join(owners[-1:], settings[-1:], owners[-1:], prompts[-1:], prompts[-1:])
        for _ in range(3):
            assert torch.isfinite(batch.collect_oldest().numbers[: len(settings) - 1]).all()
            batch.launch()
        batch.remove(owners[:6])
        batch.launch()
        assert not device.waits
        assert device.operations.total() > 400


def test_texts_on_the_device_are_those_of_the_cpu(tokenizer: tiktoken.Encoding) -> None:
    settings = [SETTINGS[0], SETTINGS[3]]
    model = tiny_model(end_of_text_bias=9.0)
    expected = texts(DecodingEngine(DecodingModel(model)), tokenizer, settings)
    with StandInDevice():
        engine = DeviceEngine(DecodingModel(tiny_model(end_of_text_bias=9.0).to("cuda:0")), slots=2)
        actual = texts(engine, tokenizer, settings)
    for a, b in zip(actual, expected, strict=True):
        assert a.result.token_ids == b.result.token_ids
        assert a.result.finish_reason == b.result.finish_reason


def captured_batch(model: DecodingModel, settings: list[GenerationSettings]) -> StaticBatch:
    """Return a batch whose steps are captured although the model is on the CPU."""
    batch = batch_of(model, settings)
    batch.steps._graphs = True
    return batch


@pytest.mark.parametrize(
    ("precision", "architecture"), [("float32", {}), ("bfloat16", {}), ("bfloat16", MODERN)], ids=str
)
def test_replayed_steps_give_the_numbers_of_launched_ones(
    monkeypatch: pytest.MonkeyPatch, precision: str, architecture: dict[str, Any]
) -> None:
    install(monkeypatch)
    model = DecodingModel(tiny_model(gates_trained=not architecture, **architecture), precision=precision)
    settings = [kind for kind in KINDS if kind.max_tokens]
    captured, launched = captured_batch(model, settings), batch_of(model, settings)
    compared = 0
    while captured.can_launch:
        for batch in (captured, launched):
            batch.launch()
        actual, expected = captured.collect_oldest(), launched.collect_oldest()
        active = [slot for slot, owner in enumerate(expected.owners) if owner is not None]
        assert actual.owners == expected.owners
        assert torch.equal(actual.numbers[active], expected.numbers[active])
        compared += 1
    assert compared == max(kind.max_tokens for kind in settings)
    graphs = captured.steps._captured.values()
    assert RecordedGraph.made == len(graphs) < compared / 2
    assert sum(graph.replays for graph in graphs) == compared


def test_texts_are_right_when_few_graphs_are_kept(
    monkeypatch: pytest.MonkeyPatch, tokenizer: tiktoken.Encoding
) -> None:
    """Sequences join and leave, the state grows, and graphs are discarded and captured again."""
    install(monkeypatch)
    monkeypatch.setattr(cuda_graph, "MAX_GRAPHS", 2)
    monkeypatch.setattr(cuda_graph, "WARM_UPS", 1)
    model = DecodingModel(tiny_model(end_of_text_bias=9.0))
    kinds = SETTINGS[:5]
    expected = generate_texts(DecodingEngine(model), tokenizer, 5, joins=10, kinds=kinds)
    engine = DeviceEngine(model)
    engine._batch.steps._graphs = True
    actual = generate_texts(engine, tokenizer, 5, joins=10, kinds=kinds)
    assert engine.captured <= 2 < RecordedGraph.made
    for a, b in zip(actual, expected, strict=True):
        assert a.result.token_ids == b.result.token_ids


def test_a_number_of_the_host_inside_a_captured_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step adds a number that Python counts per launch. Replays repeat the captured number, so results differ."""
    install(monkeypatch)
    monkeypatch.setattr(cuda_graph, "WARM_UPS", 0)
    model = DecodingModel(tiny_model())

    def tokens(batch: StaticBatch) -> list[float]:
        plain, launches = batch.steps._step, iter(range(100))

        def step(model: DecodingModel, state: StaticState, shape: StepShape) -> None:
            plain(model, state, shape)
            state.logits.add_(next(launches) * torch.arange(state.logits.shape[1]))

        monkeypatch.setattr(batch.steps, "_step", step)
        for _ in range(6):
            batch.launch()
        return [batch.collect_oldest().numbers[0, 0].item() for _ in range(6)]

    captured, launched = tokens(captured_batch(model, KINDS[:1])), tokens(batch_of(model, KINDS[:1]))
    assert captured[0] == launched[0]
    assert captured != launched
