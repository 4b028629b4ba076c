"""No error reply contains a path of the server's file system."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from common.artifacts import ArtifactStore
from common.checkpoint import save_model
from common.config import PROJECT_ROOT, Settings
from common.model import ModelConfig, TransformerLM
from tests.integration.api.conftest import TINY_CONFIG, Api, RunApi
from tests.integration.api.openai_fixtures import Generator

PATHS = ("/tmp/", str(PROJECT_ROOT), str(Path.home()), str(Path.cwd()))


def refused(reply: httpx.Response, tmp_path: Path) -> str:
    """Assert that the reply is an error without a server path, and return its text."""
    assert reply.status_code >= 400, reply.text
    for path in (str(tmp_path), *PATHS):
        assert path not in reply.text, reply.text
    return reply.text


@pytest.fixture
def broken(api: Api) -> dict[str, str]:
    """Return {file name: reference} of checkpoints that cannot be loaded."""
    folder = api.experiment_folder("exp-1")
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    save_model(model, folder / "model_final.safetensors")
    complete = (folder / "model_final.safetensors").read_bytes()
    contents = {
        "model_empty.pth": b"",
        "model_text.pth": b"no weights",
        "model_cut.pth": b"PK\x03\x04" + bytes(100),
        "model_text.safetensors": b"no weights",
        "model_cut.safetensors": complete[: len(complete) // 2],
        "rl_checkpoint_text.pth": b"no weights",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    step = folder / "checkpoints" / "step-000000001"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text('{"format": 1, "files": {}}')
    return {name: f"exp-1/{name}" for name in (*contents, "checkpoints/step-000000001")}


def test_checkpoints_that_cannot_be_loaded_are_named_by_their_reference(
    api: Api, broken: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    """Replies, streams and the OpenAI endpoints pass on the engine's error text, which must contain no server path."""
    generator = Generator(redis_url, api.settings.experiments_dir)
    try:
        for name, reference in broken.items():
            asked: dict[str, Any] = {"checkpoint": reference, "prompt": "Tom", "maxTokens": 2}
            if name.startswith("rl_"):
                asked |= {"checkpoint": "exp-1/model_final.safetensors", "rlCheckpoint": reference}
                asked |= {"gatingMode": "learned"}
            text = refused(api.admin.post("/api/generate", json=asked), tmp_path)
            assert f"experiments/{reference}" in text or reference in text
            refused(api.admin.post("/api/generate", json={**asked, "stream": True}), tmp_path)
            completion = {"model": reference, "prompt": ["Tom", "Anna"], "max_tokens": 2, "stream": True}
            if not name.startswith("rl_"):
                refused(api.admin.post("/v1/completions", json=completion), tmp_path)
            analysis = {"checkpoint": asked["checkpoint"], "prompts": ["Tom"], "maxTokens": 2, "gatingMode": "random"}
            if not name.startswith("rl_"):
                refused(api.admin.post("/api/analyze-trajectories", json=analysis), tmp_path)
    finally:
        generator.close()


def test_files_that_are_missing_damaged_or_outside_are_named_by_what_they_are(api: Api, tmp_path: Path) -> None:
    job = api.submit()
    folder = api.experiment_folder(job["experimentId"])
    (folder / "evaluation_results.json").write_text("{")
    (folder / "evaluation_results").mkdir()
    (folder / "evaluation_results" / "evaluation_results.json").write_text("{")
    (folder / "ablation_results.json").mkdir()
    for config in ("/etc/passwd", "../secret.yaml", str(tmp_path / "secret.yaml"), "nosuch.yaml", "no\0pe.yaml"):
        text = api.admin.post("/api/jobs", json={"type": "lm-training", "configPath": config}).text
        assert config.startswith("/tmp/") or str(tmp_path) not in text
        refused(api.admin.get(f"/api/configs/{config.strip('/').replace(chr(0), '%00')}"), Path("/nowhere"))
    for path in ("evaluation", "ablation"):
        refused(api.admin.get(f"/api/experiments/{job['experimentId']}/{path}"), tmp_path)
    for source in ("missing.txt", "../x.txt", "~/x.txt", "no-such-dataset"):
        body = {"type": "lm-training", "config": {**TINY_CONFIG, "data": {"source": source}}}
        reply = api.admin.post("/api/jobs", json=body)
        assert str(tmp_path) not in reply.text
    refused(api.admin.post("/api/datasets?name=a.parquet", content=b"PAR1 nothing PAR1"), tmp_path)
    refused(api.admin.post("/api/datasets?name=a.jsonl", content=b"{]"), tmp_path)
    refused(api.admin.post("/api/datasets?name=a.txt", content=b"\xff\xfe\x00"), tmp_path)


def test_an_error_of_the_disk_is_reported_without_its_path(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ArtifactStore, *_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.root / "exp"))

    def upload() -> str:
        return refused(api.admin.post("/api/datasets?name=tales.txt", content=b"a\n<|endoftext|>\nb\n"), tmp_path)

    # A file in place of the folder for uploads causes an OSError whose text contains the path.
    api.settings.data_dir.mkdir(exist_ok=True)
    (api.settings.data_dir / "datasets").write_text("in the way")
    assert "in the way" not in upload()
    job = api.submit()
    api.admin.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
    api.experiment_folder(job["experimentId"])
    monkeypatch.setattr(ArtifactStore, "detach", full)
    monkeypatch.setattr(ArtifactStore, "delete", full)
    refused(api.admin.delete(f"/api/experiments/{job['experimentId']}"), tmp_path)


def test_readiness_names_the_setting_and_not_the_folder(serve: RunApi, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with serve(experiments_dir=tmp_path / "file" / "experiments") as api:
        text = refused(api.http.get("/readyz"), tmp_path)
        assert "TIDAL_EXPERIMENTS_DIR" in json.loads(text)["detail"]
