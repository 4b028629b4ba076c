"""Payloads are complete and strict, and their references never point outside the store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.config import LMConfig, RLConfig
from common.errors import ConfigError
from common.jobs.payloads import PAYLOADS, QUEUES, check_payload, normal_reference
from tidal_client.vocabulary import JobType

SMALLEST: dict[JobType, dict[str, Any]] = {
    JobType.LM_TRAINING: {"config": {}},
    JobType.RL_TRAINING: {"config": {}, "checkpoint": "exp/final", "data": {}},
    JobType.EVALUATION: {"checkpoint": "exp/final", "data": {}, "evaluation": {}},
    JobType.HEADROOM: {"checkpoint": "exp/final", "config": {}, "data": {}},
    JobType.ABLATION: {"checkpoint": "exp/final", "rl_checkpoint": "rl/final", "config": {}, "data": {}},
    JobType.ANALYSIS: {"checkpoint": "exp/final", "rl_checkpoint": "rl/final", "analysis": {"prompts": ["Once"]}},
    JobType.DATASET: {"data": {"source": "tales"}, "sha256": "ab"},
}


@pytest.mark.parametrize("job_type", list(JobType))
def test_a_payload_survives_json_unchanged(job_type: JobType) -> None:
    payload = check_payload(job_type, SMALLEST[job_type])
    stored = json.loads(json.dumps(payload.model_dump(mode="json")))
    assert check_payload(job_type, stored) == payload


def test_every_type_has_a_payload_and_a_queue() -> None:
    assert set(PAYLOADS) == set(QUEUES) == set(JobType)


def test_defaults_are_filled_in_at_submission() -> None:
    stored = check_payload(JobType.LM_TRAINING, {"config": {"training": {"seed": 7}}}).model_dump(mode="json")
    assert LMConfig.model_validate(stored["config"]).training.seed == 7
    assert stored["config"]["model"]["d_model"] == 256
    rl = check_payload(JobType.RL_TRAINING, SMALLEST[JobType.RL_TRAINING]).model_dump(mode="json")
    assert RLConfig.model_validate(rl["config"]) == RLConfig()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("exp/model.pth", "exp/model.pth"),
        ("experiments/exp/model.pth", "exp/model.pth"),
        ("20260101-000000-commit_abc1234-config_0123456789/checkpoints/step-000000005", None),
        (" exp/best\n", "exp/best"),
    ],
)
def test_references_into_the_store(text: str, normal: str | None) -> None:
    assert normal_reference(text) == (normal or text)


@pytest.mark.parametrize(
    "text",
    ["", "exp", "/etc/passwd", "../exp/x", "exp/../../x", "exp//x", "exp/.hidden", "exp\\x", "experiments/exp"],
)
def test_references_out_of_the_store_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a reference into the store"):
        normal_reference(text)


def test_every_invalid_field_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        check_payload(
            JobType.RL_TRAINING, {"config": {"ppo": {"gama": 1}}, "checkpoint": "/x", "data": {"max_documents": 0}}
        )
    assert {finding["location"] for finding in caught.value.errors} == {
        "config.ppo.gama",
        "checkpoint",
        "data.max_documents",
    }


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'confg'; did you mean 'config'"):
        check_payload(JobType.LM_TRAINING, {"confg": {}})
