"""An analysis job uses the vocabulary of its model, never GPT-2's, and refuses a controller for another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.artifacts import ArtifactStore
from common.checkpoint import CheckpointManager
from common.checkpoint.model_file import model_meta
from common.child.protocol import ChildJob
from common.controller import GatingPolicy
from common.errors import InvalidInputError
from common.training.hooks import NullHooks
from services.trainer.handlers import HANDLERS, JobPaths
from tests.own_vocabulary import forbid_gpt2, own_model, own_vocabulary


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """Store a training checkpoint with its own vocabulary, and a controller that was trained with GPT-2's."""
    forbid_gpt2(monkeypatch)
    model = own_model(own_vocabulary())
    CheckpointManager(tmp_path / "exp-1" / "checkpoints", keep_last=1).save(
        3, model.state_dict(), {"step": 3}, meta=model_meta(model.config, model.vocabulary, gates_trained=True),
        vocabulary=model.vocabulary,
    )  # fmt: skip
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, tmp_path / "exp-1" / "rl_checkpoint_final.pth")
    return ArtifactStore(tmp_path)


def analyse(store: ArtifactStore, **fields: Any) -> dict[str, Any]:
    payload = {"checkpoint": "exp-1/latest", **fields}
    job = ChildJob(job_id="job_1", attempt=1, job_type="analysis", experiment_id="analysed", payload=payload)
    HANDLERS["analysis"](job, JobPaths(store, store.root / "data"), NullHooks())
    return dict(json.loads((store.root / "analysed" / "analysis_results.json").read_text()))


def test_the_tokens_of_an_analysis_are_those_of_the_own_vocabulary(store: ArtifactStore) -> None:
    vocabulary = own_vocabulary()
    found = analyse(store, analysis={"prompts": ["the cat"], "gating_mode": "random", "max_tokens": 6, "seed": 3})
    [entry] = found["trajectories"]
    [sample] = entry["samples"]
    assert "".join(sample["tokenTexts"]) == sample["text"]
    assert sample["text"] == vocabulary.encoding.decode(sample["tokenIds"])


def test_a_controller_for_another_vocabulary_is_refused_with_both_names(store: ArtifactStore) -> None:
    with pytest.raises(InvalidInputError, match=r"vocabulary gpt2 \(digest .* has train:400 \(digest"):
        analyse(
            store,
            rl_checkpoint="exp-1/rl_checkpoint_final.pth",
            analysis={"prompts": ["the cat"], "gating_mode": "learned", "max_tokens": 2},
        )
