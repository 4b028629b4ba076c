"""Resources for the contract test, and for every operation a request that succeeds."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from common.checkpoint import save_model
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.model import ModelConfig, TransformerLM
from services.api.operations.experiments import ABLATION_FILE, EVALUATION_FILE, HEADROOM_FILE
from tests.browser.seed import ablation, add_experiment
from tests.integration.api.conftest import Api

ANALYSIS = {
    "kind": "single", "request": {"prompts": ["Tom"]}, "trajectories": [], "tokensGenerated": 0, "elapsedMs": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class ValidRequest:
    """Path parameters, query and body of a request that succeeds."""

    path: dict[str, str] = field(default_factory=dict)
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)


class Resources:
    """Creates experiments, a job, a model, a controller, a report, an analysis and a dataset with `api`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._numbers = itertools.count(1)
        folder = api.settings.experiments_dir
        with api.context.sessions.begin() as session:
            self.lm = add_experiment(session, folder, "Slow cosine", "lm", 40, number=1)
            self.rl = add_experiment(session, folder, "Helmsman", "rl", 20, number=2)
        torch.manual_seed(0)
        model = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
        with torch.no_grad():
            model.output_projection.bias[load_tokenizer().eot_token] = -30.0  # otherwise completions may be empty
        save_model(model, folder / self.lm / "model.safetensors")
        torch.save({"agent_state_dict": GatingPolicy().state_dict()}, folder / self.rl / "rl_checkpoint_final.pth")
        samples = [{"prompt": "Tom", "generated": " ran"}]
        results = {EVALUATION_FILE: {"perplexity": 9.0, "samples": samples}, ABLATION_FILE: ablation(random.Random(1))}
        results[HEADROOM_FILE] = {"verdict": "There is headroom."}
        for name, result in results.items():
            path = folder / self.lm / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result))
        self.job = api.submit(name="kept", tags=["kept"])["id"]
        self.report = self._made("/api/reports", {"title": "Kept", "markdown": "# Kept"})
        self.analysis = self._made(f"/api/experiments/{self.lm}/analyses", {"result": ANALYSIS})
        self.dataset = self._upload()
        self.token = self._token()

    def path_values(self) -> dict[str, str]:
        """Return values of path parameters; they refer to resources that no request deletes."""
        return {
            "job_id": self.job,
            "experiment_id": self.lm,
            "report_id": self.report,
            "analysis_id": self.analysis,
            "file": "base_config.yaml",
            "token_id": self.token,
        }

    @property
    def kept(self) -> set[str]:
        """Return the ids that no request may delete."""
        return {self.lm, self.rl, self.job, self.report, self.analysis, self.dataset, self.token}

    def substitute(self, body: Any) -> Any:
        """Return `body` with references to existing resources and with limits that keep completions short."""
        if not isinstance(body, dict):
            return body
        model = f"{self.lm}/final"
        known = {
            "checkpoint": model, "model": model, "rlCheckpoint": f"{self.rl}/final", "resumeFrom": self.job,
            "rl_checkpoint": f"{self.rl}/final", "configPath": "base_config.yaml", "experimentId": self.lm,
            "experimentIds": [self.lm], "maxTokens": 3, "max_tokens": 3, "samplesPerPrompt": 1, "n": 1, "best_of": 1,
        }  # fmt: skip
        return {name: known.get(name, value) for name, value in body.items()}

    def valid(self, label: str) -> ValidRequest:
        """Create what the operation `label` (such as `GET /path`) needs, and return a request that succeeds."""
        made: Callable[[], ValidRequest]
        made = getattr(self, f"_{_MADE_BY[label]}") if label in _MADE_BY else self.plain(label)
        return made()

    def plain(self, label: str) -> Callable[[], ValidRequest]:
        path = self.path_values()
        if label.startswith("GET /api/datasets/"):
            path["name"] = self.dataset
        elif "/checkpoints/{name}" in label:
            path["name"] = "final"
        elif label.startswith("GET /v1/models/"):
            path["name"] = f"{self.lm}/final"
        return lambda: ValidRequest(path)

    def _submit(self) -> ValidRequest:
        config = {"model": {"d_model": 16, "num_layers": 1, "num_heads": 2}, "data": {"source": "builtin:stories"}}
        return ValidRequest(
            body={"type": "lm-training", "config": config}, query={"dryRun": next(self._numbers) % 2 == 0}
        )

    def _signal(self) -> ValidRequest:
        return ValidRequest({"job_id": self.api.submit()["id"]}, {"signal": "stop"})

    def _cancel(self) -> ValidRequest:
        return ValidRequest({"job_id": self.api.submit()["id"]})

    def _change_experiment(self) -> ValidRequest:
        return ValidRequest({"experiment_id": self.lm}, {"name": "renamed", "tags": ["a"], "notes": "b"})

    def _ended(self) -> str:
        """Create an experiment of a cancelled job, write a file of weights into it, and return the experiment's id."""
        job = self.api.submit()
        self.api.admin.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
        (self.api.experiment_folder(job["experimentId"]) / "model.safetensors").write_bytes(b"weights")
        return str(job["experimentId"])

    def _delete_experiment(self) -> ValidRequest:
        return ValidRequest({"experiment_id": self._ended()})

    def _delete_checkpoint(self) -> ValidRequest:
        return ValidRequest({"experiment_id": self._ended(), "name": "model.safetensors"})

    def _upload_dataset(self) -> ValidRequest:
        return ValidRequest(body=b"a\n<|endoftext|>\nb\n", query={"name": f"tales{next(self._numbers)}.txt"})

    def _upload(self) -> str:
        wanted = self._upload_dataset()
        reply = self.api.admin.post("/api/datasets", params=wanted.query, content=wanted.body).raise_for_status()
        self.api.admin.post(f"/api/jobs/{reply.json()['job']['id']}/cancel").raise_for_status()
        return str(reply.json()["dataset"]["name"])

    def _delete_dataset(self) -> ValidRequest:
        return ValidRequest({"name": self._upload()})

    def _generate(self) -> ValidRequest:
        body = {"checkpoint": f"{self.lm}/final", "prompt": "Tom", "maxTokens": 3, "temperature": 0}
        return ValidRequest(body={**body, "stream": next(self._numbers) % 2 == 0})

    def _complete(self) -> ValidRequest:
        body = {"model": f"{self.lm}/final", "prompt": "Tom", "max_tokens": 3, "temperature": 0}
        return ValidRequest(body={**body, "stream": next(self._numbers) % 2 == 0})

    def _chat(self) -> ValidRequest:
        messages = [{"role": "user", "content": "Tom"}]
        body = {"model": f"{self.lm}/final", "messages": messages, "max_tokens": 3, "temperature": 0}
        return ValidRequest(body={**body, "stream": next(self._numbers) % 2 == 0})

    def _analyze(self) -> ValidRequest:
        asked = {"checkpoint": f"{self.lm}/final", "prompts": ["Tom", "Anna"], "maxTokens": 3, "gatingMode": "random"}
        return ValidRequest(body=asked)

    def _save_analysis(self) -> ValidRequest:
        return ValidRequest({"experiment_id": self.lm}, {"name": "kept", "result": ANALYSIS})

    def _delete_analyses(self) -> ValidRequest:
        return ValidRequest({"experiment_id": self._ended()})

    def _delete_analysis(self) -> ValidRequest:
        return ValidRequest({"analysis_id": self._made(f"/api/experiments/{self.lm}/analyses", {"result": ANALYSIS})})

    def _write_report(self) -> ValidRequest:
        return ValidRequest(body={"title": "New", "markdown": "text", "experimentIds": [self.lm]})

    def _make_report(self) -> ValidRequest:
        return ValidRequest(body={"pattern": "full-report", "experimentIds": [self.lm, self.rl]})

    def _render_report(self) -> ValidRequest:
        return ValidRequest(body={"markdown": "# A\n\n```chart\n{}\n```\n"})

    def _change_report(self) -> ValidRequest:
        made = self._made("/api/reports", {"title": "Old", "markdown": "text"})
        return ValidRequest({"report_id": made}, {"title": "New", "markdown": "text", "version": 1})

    def _delete_report(self) -> ValidRequest:
        return ValidRequest({"report_id": self._made("/api/reports", {"title": "Old", "markdown": "text"})})

    def _new_token(self) -> ValidRequest:
        return ValidRequest(body={"name": f"token {next(self._numbers)}", "scopes": ["read"]})

    def _token(self) -> str:
        return self._made("/api/tokens", self._new_token().body)

    def _revoke_token(self) -> ValidRequest:
        return ValidRequest({"token_id": self._token()})

    def _made(self, path: str, body: dict[str, Any]) -> str:
        return str(self.api.admin.post(path, json=body).raise_for_status().json()["id"])


_MADE_BY = {
    "POST /api/jobs": "submit",
    "POST /api/jobs/{job_id}/signal": "signal",
    "POST /api/jobs/{job_id}/cancel": "cancel",
    "PATCH /api/experiments/{experiment_id}": "change_experiment",
    "DELETE /api/experiments/{experiment_id}": "delete_experiment",
    "DELETE /api/experiments/{experiment_id}/checkpoints/{name}": "delete_checkpoint",
    "POST /api/datasets": "upload_dataset",
    "DELETE /api/datasets/{name}": "delete_dataset",
    "POST /api/generate": "generate",
    "POST /v1/completions": "complete",
    "POST /v1/chat/completions": "chat",
    "POST /api/analyze-trajectories": "analyze",
    "POST /api/experiments/{experiment_id}/analyses": "save_analysis",
    "DELETE /api/experiments/{experiment_id}/analyses": "delete_analyses",
    "DELETE /api/analyses/{analysis_id}": "delete_analysis",
    "POST /api/reports": "write_report",
    "POST /api/reports/generate": "make_report",
    "POST /api/reports/render": "render_report",
    "PUT /api/reports/{report_id}": "change_report",
    "DELETE /api/reports/{report_id}": "delete_report",
    "POST /api/tokens": "new_token",
    "DELETE /api/tokens/{token_id}": "revoke_token",
}
