"""With `auto`, a training on a CPU measures precision and compilation before its first step, and keeps the choice.

The seconds of a pass are set by the tests, because they differ from machine to machine; all else is real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager
from common.config import LMConfig
from common.config.lm import TrainingConfig
from common.config.model import ModelConfig
from common.model import TransformerLM, block
from common.training import cpu_choice
from common.training.cpu_choice import Workload, choose_on_cpu
from common.training.device import ComputeConfig, prepare_compute
from common.training.hooks import Outcome, StopRequest
from common.training.loss import summed_loss
from common.training.pretrain import pretrain
from tidal_client.vocabulary import CheckpointMode

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
STEP = 4
"""Number of calls of `report_progress` per step, as in `test_resume`."""


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compile without a C++ compiler, which would take half a minute, and forget what was compiled."""
    monkeypatch.setattr(block, "_compiled_steps", partial(_steps_of_backend, "eager"))
    yield
    torch.compiler.set_stance("default")


def _steps_of_backend(backend: str) -> Any:
    return block._TrainingSteps(*(torch.compile(s, dynamic=False, backend=backend) for s in block._EAGER_STEPS))


class Speeds:
    """Replaces the measured seconds of each pass, and counts the passes. The pass itself is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.passes: list[str] = []
        run = cpu_choice._Trial.run

        def timed(trial: Any, compute: ComputeConfig, sequences: int | None = None, **options: Any) -> float:
            run(trial, compute, sequences, **options)
            name = "compiled" if compute.compiles else compute.precision
            self.passes.append(name)
            return seconds[name]

        monkeypatch.setattr(cpu_choice._Trial, "run", timed)
        monkeypatch.setattr(cpu_choice, "LEAST_SECONDS", 0.0)


def choice(hooks: Any) -> dict[str, Any]:
    (event,) = hooks.named("compute")
    return dict(event)


def automatic(make_config: Config) -> LMConfig:
    return make_config(training={"precision": "auto", "compile": "auto"})


def test_a_short_training_is_not_measured(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, speeds = recorder(), Speeds(monkeypatch, float32=0.001)
    monkeypatch.setattr(cpu_choice, "LEAST_SECONDS", 10.0)
    assert pretrain(automatic(make_config), tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    found = choice(hooks)
    assert (found["precision"], found["compiled"]) == ("float32", False)
    # 6 steps of 3 micro-batches of 2 sequences, each of which takes at most 1 ms.
    reason = "not measured: the training takes 0.0 s at most"
    assert found["precision_reason"] == found["compile_reason"] == reason
    assert len(speeds.passes) == 1


def test_bf16_without_instructions_for_it_costs_two_short_passes(
    recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ModelConfig(vocab_size=50, d_model=8, num_layers=1, num_heads=2, ffn_dim=16, context_length=200)
    config, tokens = TrainingConfig(device="cpu", precision="auto", compile="off"), list[tuple[str, int]]()
    forward = TransformerLM.hidden_states

    def counted(model: TransformerLM, ids: torch.Tensor, *rest: Any, **options: Any) -> Any:
        tokens.append(("bf16" if torch.is_autocast_enabled("cpu") else "float32", ids.numel()))
        return forward(model, ids, *rest, **options)

    monkeypatch.setattr(TransformerLM, "hidden_states", counted)
    Speeds(monkeypatch, float32=1.0, bf16=2.1)
    work, hooks = Workload(micro_batch=16, length=200, micro_batches=1000), recorder()
    chosen = choose_on_cpu(TransformerLM(shape).train(), prepare_compute(config), config, work, hooks, stored=False)
    assert chosen.precision == "float32"
    assert tokens == [("float32", 200), *[("float32", 64)] * 2, *[("bf16", 64)] * 2]
    tokens.clear()
    Speeds(monkeypatch, float32=1.0, bf16=0.9)
    chosen = choose_on_cpu(TransformerLM(shape).train(), prepare_compute(config), config, work, hooks, stored=False)
    assert chosen.precision == "bf16"
    assert tokens[5:] == [*[("float32", 1000)] * 4, *[("bf16", 1000)] * 4]


def test_measuring_changes_neither_weights_nor_random_numbers(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, measured = recorder(), recorder()
    explicit = make_config(training={"precision": "float32", "compile": "off"})
    pretrain(explicit, tmp_path / "fixed", fixed, data_dir=data_dir)
    speeds = Speeds(monkeypatch, float32=1.0, bf16=1.5)
    pretrain(automatic(make_config), tmp_path / "measured", measured, data_dir=data_dir)
    assert "bf16" in speeds.passes
    assert measured.series("Losses/Total") == fixed.series("Losses/Total")


def test_the_faster_precision_is_used_stored_and_kept(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = automatic(make_config)
    Speeds(monkeypatch, float32=1.0, bf16=0.5)
    whole, first, second = recorder(), recorder(StopRequest.PAUSE, after=3 * STEP), recorder()
    pretrain(config, tmp_path / "whole", whole, data_dir=data_dir)
    assert choice(whole)["precision"] == "bf16"
    assert choice(whole)["precision_reason"] == "bf16: a pass takes 1.000 s in float32 and 0.500 s in bf16"
    assert pretrain(config, tmp_path / "cut", first, data_dir=data_dir) is Outcome.PAUSED
    later = Speeds(monkeypatch, float32=0.1, bf16=0.5)
    pretrain(config, tmp_path / "cut", second, data_dir=data_dir)
    assert choice(second)["precision"] == "bf16" and not later.passes
    assert not second.named("resume_inexact")
    assert {**first.series("Losses/Total"), **second.series("Losses/Total")} == whole.series("Losses/Total")
    newest = CheckpointManager(tmp_path / "cut" / "checkpoints", keep_last=3).latest()
    assert newest is not None
    assert newest.meta["compute"] == {"device": "cpu", "precision": "bf16", "compiled": False}


def test_a_checkpoint_of_an_older_version_continues_in_float32(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComputeConfig, "stored", lambda self: None)  # older versions stored nothing
    config = automatic(make_config)
    pretrain(config, tmp_path, recorder(StopRequest.PAUSE, after=3 * STEP), data_dir=data_dir)
    speeds, hooks = Speeds(monkeypatch, float32=1.0, bf16=0.1), recorder()
    pretrain(config, tmp_path, hooks, data_dir=data_dir)
    assert choice(hooks)["precision"] == "float32" and not speeds.passes
    assert not hooks.named("resume_inexact")


def test_a_fine_tuning_measures_anew_and_a_continued_training_does_not(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = automatic(make_config)
    Speeds(monkeypatch, float32=1.0, bf16=0.5)
    pretrain(config, tmp_path / "first", recorder(), data_dir=data_dir)
    newest = CheckpointManager(tmp_path / "first" / "checkpoints", keep_last=3).latest()
    assert newest is not None
    for mode, precision in ((CheckpointMode.AUTO, "bf16"), (CheckpointMode.FINE_TUNE, "float32")):
        Speeds(monkeypatch, float32=1.0, bf16=2.0)
        hooks = recorder()
        start: dict[str, Any] = {"initial_checkpoint": newest.path, "checkpoint_mode": mode}
        pretrain(config, tmp_path / mode, hooks, data_dir=data_dir, **start)
        assert choice(hooks)["precision"] == precision


def test_compilation_is_used_where_it_is_faster_and_kept_on_resume(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice, "COMPILE_TIMES", 0)
    monkeypatch.setattr(cpu_choice, "compiler_problem", lambda: None)
    config = automatic(make_config)
    Speeds(monkeypatch, float32=1.0, bf16=2.0, compiled=0.9)
    whole, first, second = recorder(), recorder(StopRequest.PAUSE, after=3 * STEP), recorder()
    pretrain(config, tmp_path / "whole", whole, data_dir=data_dir)
    assert choice(whole)["compiled"] is True
    assert choice(whole)["compile_reason"] == "on: a micro-batch takes 1.000 s eagerly and 0.900 s compiled"
    pretrain(config, tmp_path / "cut", first, data_dir=data_dir)
    pretrain(config, tmp_path / "cut", second, data_dir=data_dir)
    assert choice(second)["compiled"] is True
    assert not second.named("resume_inexact")
    assert {**first.series("Losses/Total"), **second.series("Losses/Total")} == whole.series("Losses/Total")


def test_a_resume_without_a_compiler_is_reported_as_inexact(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice, "COMPILE_TIMES", 0)
    config = automatic(make_config)
    Speeds(monkeypatch, float32=1.0, bf16=2.0, compiled=0.9)
    with monkeypatch.context() as with_compiler:
        with_compiler.setattr(cpu_choice, "compiler_problem", lambda: None)
        pretrain(config, tmp_path, recorder(StopRequest.PAUSE, after=3 * STEP), data_dir=data_dir)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    hooks = recorder()
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert choice(hooks)["compile_reason"] == "off: no C++ compiler (g++, clang++, c++) was found"
    (inexact,) = hooks.named("resume_inexact")
    assert inexact["reasons"] == ["compiled was True, is False"]


def test_a_stop_request_ends_the_measurement(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = Speeds(monkeypatch, float32=1.0, bf16=2.0)
    hooks = recorder(StopRequest.STOP, after=0)
    hooks.requested_stop = lambda: StopRequest.STOP if len(speeds.passes) == 3 else None
    assert pretrain(automatic(make_config), tmp_path, hooks, data_dir=data_dir) is Outcome.STOPPED
    assert len(speeds.passes) == 3 and not hooks.named("compute")


def test_a_model_without_gates_is_compiled_without_modulation(recorder: Recorders) -> None:
    shape = ModelConfig(vocab_size=50, d_model=8, num_layers=1, num_heads=2, ffn_dim=16, gates=False)
    config = TrainingConfig(device="cpu", threads=1, compile="on")
    work, hooks = Workload(micro_batch=2, length=8, micro_batches=10), recorder()
    compute = choose_on_cpu(TransformerLM(shape).train(), prepare_compute(config), config, work, hooks, stored=False)
    assert compute.compiles and choice(hooks)["compile_reason"] == "training.compile is on"


def test_slower_or_failing_compilation_is_given_up(monkeypatch: pytest.MonkeyPatch, recorder: Recorders) -> None:
    model = TransformerLM(ModelConfig(vocab_size=50, d_model=8, num_layers=1, num_heads=2, ffn_dim=16)).train()
    compute = prepare_compute(LMConfig().training.model_copy(update={"device": "cpu"}))
    monkeypatch.setattr(cpu_choice, "COMPILE_TIMES", 0)
    monkeypatch.setattr(cpu_choice, "compiler_problem", lambda: None)
    Speeds(monkeypatch, float32=1.0, bf16=2.0, compiled=0.99)
    work, hooks = Workload(micro_batch=2, length=8, micro_batches=1000), recorder()
    chosen = choose_on_cpu(model, compute, LMConfig().training, work, hooks, stored=False)
    assert not chosen.compiles and all(each._steps is block._EAGER_STEPS for each in model.blocks)
    monkeypatch.setattr(block, "_compiled_steps", partial(_steps_of_backend, "there is no such backend"))
    assert not choose_on_cpu(model, compute, LMConfig().training, work, hooks, stored=False).compiles
    assert "torch.compile failed" in hooks.named("compute")[1]["compile_reason"]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_compiled_blocks_give_the_loss_and_gradients_of_eager_ones() -> None:
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=60, d_model=16, num_layers=2, num_heads=2, ffn_dim=32, dropout=0.2)
    model = TransformerLM(shape).train()
    ids, m = torch.randint(60, (3, 12)), torch.rand(3, 1)

    def results() -> list[torch.Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        loss = summed_loss(model, ids, ids.roll(-1, 1), m)
        torch.autograd.backward(loss)
        return [loss.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]

    eager = results()
    model.use_compiled_blocks(True)
    torch.testing.assert_close(results(), eager)
    model.use_compiled_blocks(False)
    assert all(torch.equal(found, expected) for found, expected in zip(results(), eager, strict=True))
