"""Policies are loaded from every file format, and other files are rejected with clear errors."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from common.checkpoint import CheckpointManager
from common.config import ModulationConfig, PolicyConfig, RLConfig
from common.controller import GatingPolicy, load_policy
from common.errors import CheckpointError, NotFoundError


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
@pytest.mark.parametrize("cost_critic", [False, True])
def test_every_form_round_trips(tmp_path: Path, distribution: str, cost_critic: bool) -> None:
    policy = GatingPolicy(PolicyConfig(distribution=distribution, hidden_dim=16), cost_critic=cost_critic)
    state = policy.state_dict()
    torch.save({"agent_state_dict": state, "global_step": 3}, tmp_path / "rl_checkpoint_final.pth")
    torch.save(state, tmp_path / "bare.pth")
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "compiled.pth")
    folder = CheckpointManager(tmp_path / "checkpoints", keep_last=1, prefix="iter").save(
        1, state, {"global_step": 3}, meta={"kind": "rl", "config": RLConfig().model_dump(mode="json")}
    )
    files = [tmp_path / "rl_checkpoint_final.pth", tmp_path / "bare.pth", tmp_path / "compiled.pth", folder.path]
    for name in files:
        loaded = load_policy(name)
        assert loaded.config.distribution == distribution
        assert not loaded.training
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, state[key]), (name, key)


def test_concentration_limit_and_modulation_map_come_from_the_stored_configuration(tmp_path: Path) -> None:
    state = GatingPolicy().state_dict()
    config = RLConfig(
        policy=PolicyConfig(concentration_max=7.0), modulation=ModulationConfig(base_repetition_penalty=1.05)
    )
    torch.save({"agent_state_dict": state, "config": config.model_dump(mode="json")}, tmp_path / "ours.pth")
    ours = load_policy(tmp_path / "ours.pth")
    assert ours.config.concentration_max == 7.0
    assert ours.modulation_config == config.modulation
    old = {"RL_BETA_CONCENTRATION_MAX": 9.0, "RL_BASE_TEMPERATURE": 0.9, "RL_MODULATION_TOP_K_MAX": 60}
    torch.save({"agent_state_dict": state, "config": old}, tmp_path / "original.pth")
    original = load_policy(tmp_path / "original.pth")
    assert original.config.concentration_max == 9.0
    assert original.modulation_config.base_temperature == 0.9
    assert (original.modulation_config.top_k.low, original.modulation_config.top_k.high) == (5, 60)


def test_a_file_that_does_not_name_its_deterministic_action_keeps_the_mode(tmp_path: Path) -> None:
    state = GatingPolicy().state_dict()
    ours = RLConfig().model_dump(mode="json")
    older = {**ours, "policy": {k: v for k, v in ours["policy"].items() if k != "deterministic_action"}}
    for number, (config, expected) in enumerate([(ours, "mean"), (older, "mode"), ({"RL_GAMMA": 0.9}, "mode")]):
        torch.save({"agent_state_dict": state, "config": config}, tmp_path / f"{number}.pth")
        assert load_policy(tmp_path / f"{number}.pth").config.deterministic_action == expected
    assert GatingPolicy().config.deterministic_action == "mode"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (Path("made-by-a-checkpoint"),))


def test_files_that_are_no_policy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such"):
        load_policy(tmp_path / "missing.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"agent_state_dict": _Evil()}))
    torch.save({"token_embeddings.weight": torch.zeros(2, 2)}, tmp_path / "model.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    state = GatingPolicy().state_dict()
    state["critic_head.0.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "misshapen.pth")
    for name in ("noise.pth", "evil.pth", "model.pth", "list.pth", "misshapen.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_policy(tmp_path / name)
    assert not Path("made-by-a-checkpoint").exists()
