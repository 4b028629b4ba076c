"""Invalid completion requests are rejected with specific errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.artifacts import ArtifactStore
from common.errors import NotFoundError
from common.redis.generation_request import GenerationRequest
from services.api.operations.completions import model_fingerprint
from services.api.schemas.completions import CompletionRequest


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([7, -1], "contains the token id -1; token ids must be at least 0"),
        ([[7], [8, -2]], "contains the token id -2; token ids must be at least 0"),
        ("a" * 100_001, "has 100,001 characters; at most 100,000 are accepted"),
        (["a", "a" * 100_001], "has 100,001 characters; at most 100,000 are accepted"),
        ([1] * 100_001, "has 100,001 token ids; at most 100,000 are accepted"),
        ([[1], [1] * 100_001], "has 100,001 token ids; at most 100,000 are accepted"),
        (["a", [1]], "must be a string, a list of strings, a list of token ids, or a list of lists of token ids"),
    ],
)
def test_an_invalid_prompt_has_exactly_one_error(prompt: Any, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CompletionRequest.model_validate({"model": "exp/final", "prompt": prompt})
    assert [error["msg"] for error in refused.value.errors()] == [f"Value error, {message}"]


@pytest.mark.parametrize("prompt", ["", [], [[]], ["", "a"], [0], [[0], []], "a" * 100_000])
def test_valid_prompts_are_accepted(prompt: Any) -> None:
    assert CompletionRequest.model_validate({"model": "exp/final", "prompt": prompt}).prompt == prompt


def test_a_model_that_was_removed_meanwhile_is_not_found(tmp_path: Path) -> None:
    # Pruning deletes the manifest before the folder, so a request may find a folder without a manifest, or no folder.
    step = tmp_path / "exp" / "checkpoints" / "step-000000001"
    step.mkdir(parents=True)
    request = GenerationRequest(id="gen.1", checkpoint="exp/checkpoints/step-000000001", prompt="x")
    for _ in range(2):
        with pytest.raises(NotFoundError, match="was removed meanwhile") as refused:
            model_fingerprint(ArtifactStore(tmp_path), request, "1.0")
        assert refused.value.code == "model_not_found"
        if step.exists():
            step.rmdir()
