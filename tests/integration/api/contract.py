"""The api against its own OpenAPI document: schemathesis sends what the document allows and what it forbids.

Checked of every reply: it is no server error, and its status is one that the document names for the operation. One
request in four is as it was generated; in the others ids of the path, ids and the whole body are those of things that
exist (`Things`), so that every operation is also reached behind its first check. Streams never end, so of their replies
only the head is read. Leaves out: bodies of replies, which the tests of each operation compare.

Run in full with `python -m tests.integration.api.contract_run`.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
import torch
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.generation import GenerationMode

from common.checkpoint import save_model
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.model import ModelConfig, TransformerLM
from services.api.operations.experiments import ABLATION_FILE, EVALUATION_FILE
from tests.browser.seed import ablation, add_experiment
from tests.integration.api.conftest import BEARER, Api

CHECKS = ("not_a_server_error", "status_code_conformance")
STREAMS = ("/api/jobs/stream", "/api/jobs/{job_id}/stream", "/api/experiments/{experiment_id}/stream")
ANALYSIS = {
    "kind": "single", "request": {"prompts": ["Tom"]}, "trajectories": [], "tokensGenerated": 0, "elapsedMs": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Valid:
    """A request that succeeds."""

    path: dict[str, str] = field(default_factory=dict)
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)


class Things:
    """What the requests are about: experiments, a job, a model, a controller, a report, an analysis, a dataset."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._numbers = itertools.count(1)
        folder = api.settings.experiments_dir
        with api.context.sessions.begin() as session:
            self.lm = add_experiment(session, folder, "Slow cosine", "lm", 40, number=1)
            self.rl = add_experiment(session, folder, "Helmsman", "rl", 20, number=2)
        torch.manual_seed(0)
        model = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
        with torch.no_grad():
            model.output_projection.bias[load_tokenizer().eot_token] = -30.0  # or its texts may be empty
        save_model(model, folder / self.lm / "model.safetensors")
        torch.save({"agent_state_dict": GatingPolicy().state_dict()}, folder / self.rl / "rl_checkpoint_final.pth")
        samples = [{"prompt": "Tom", "generated": " ran"}]
        results = {EVALUATION_FILE: {"perplexity": 9.0, "samples": samples}, ABLATION_FILE: ablation(random.Random(1))}
        for name, result in results.items():
            path = folder / self.lm / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result))
        self.job = api.submit(name="kept", tags=["kept"])["id"]
        self.report = self._made("/api/reports", {"title": "Kept", "markdown": "# Kept"})
        self.analysis = self._made(f"/api/experiments/{self.lm}/analyses", {"result": ANALYSIS})
        self.dataset = self._upload()

    def path_values(self) -> dict[str, str]:
        """What a parameter of a path may be for something that is there and stays."""
        return {
            "job_id": self.job,
            "experiment_id": self.lm,
            "report_id": self.report,
            "analysis_id": self.analysis,
            "file": "base_config.yaml",
        }

    @property
    def kept(self) -> set[str]:
        """Ids that no request may take away."""
        return {self.lm, self.rl, self.job, self.report, self.analysis, self.dataset}

    def substitute(self, body: Any) -> Any:
        """`body` with references that exist; short, so that texts are written at once."""
        if not isinstance(body, dict):
            return body
        model = f"{self.lm}/final"
        known = {
            "checkpoint": model, "model": model, "rlCheckpoint": f"{self.rl}/final", "resumeFrom": self.job,
            "rl_checkpoint": f"{self.rl}/final", "configPath": "base_config.yaml", "experimentId": self.lm,
            "experimentIds": [self.lm], "maxTokens": 3, "max_tokens": 3, "samplesPerPrompt": 1, "n": 1, "best_of": 1,
        }  # fmt: skip
        return {name: known.get(name, value) for name, value in body.items()}

    def valid(self, label: str) -> Valid:
        """A request of the operation `GET /path` that succeeds; what it uses up is made before."""
        made: Callable[[], Valid]
        made = getattr(self, f"_{_MADE_BY[label]}") if label in _MADE_BY else self._plain(label)
        return made()

    def _plain(self, label: str) -> Callable[[], Valid]:
        path = self.path_values()
        if label.startswith("GET /api/datasets/"):
            path["name"] = self.dataset
        elif "/checkpoints/{name}" in label:
            path["name"] = "final"
        elif label.startswith("GET /v1/models/"):
            path["name"] = f"{self.lm}/final"
        return lambda: Valid(path)

    def _submit(self) -> Valid:
        config = {"model": {"d_model": 16, "num_layers": 1, "num_heads": 2}, "data": {"source": "builtin:stories"}}
        return Valid(body={"type": "lm-training", "config": config}, query={"dryRun": next(self._numbers) % 2 == 0})

    def _signal(self) -> Valid:
        return Valid({"job_id": self._api.submit()["id"]}, {"signal": "stop"})

    def _cancel(self) -> Valid:
        return Valid({"job_id": self._api.submit()["id"]})

    def _change_experiment(self) -> Valid:
        return Valid({"experiment_id": self.lm}, {"name": "renamed", "tags": ["a"], "notes": "b"})

    def _ended(self) -> str:
        """The experiment of a job that was cancelled, with a file of weights."""
        job = self._api.submit()
        self._api.admin.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
        (self._api.experiment_folder(job["experimentId"]) / "model.safetensors").write_bytes(b"weights")
        return str(job["experimentId"])

    def _delete_experiment(self) -> Valid:
        return Valid({"experiment_id": self._ended()})

    def _delete_checkpoint(self) -> Valid:
        return Valid({"experiment_id": self._ended(), "name": "model.safetensors"})

    def _upload_dataset(self) -> Valid:
        return Valid(body=b"a\n<|endoftext|>\nb\n", query={"name": f"tales{next(self._numbers)}.txt"})

    def _upload(self) -> str:
        wanted = self._upload_dataset()
        reply = self._api.admin.post("/api/datasets", params=wanted.query, content=wanted.body).raise_for_status()
        self._api.admin.post(f"/api/jobs/{reply.json()['job']['id']}/cancel").raise_for_status()
        return str(reply.json()["dataset"]["name"])

    def _delete_dataset(self) -> Valid:
        return Valid({"name": self._upload()})

    def _generate(self) -> Valid:
        body = {"checkpoint": f"{self.lm}/final", "prompt": "Tom", "maxTokens": 3, "temperature": 0}
        return Valid(body={**body, "stream": next(self._numbers) % 2 == 0})

    def _complete(self) -> Valid:
        body = {"model": f"{self.lm}/final", "prompt": "Tom", "max_tokens": 3, "temperature": 0}
        return Valid(body={**body, "stream": next(self._numbers) % 2 == 0})

    def _analyze(self) -> Valid:
        asked = {"checkpoint": f"{self.lm}/final", "prompts": ["Tom", "Anna"], "maxTokens": 3, "gatingMode": "random"}
        return Valid(body=asked)

    def _save_analysis(self) -> Valid:
        return Valid({"experiment_id": self.lm}, {"name": "kept", "result": ANALYSIS})

    def _delete_analyses(self) -> Valid:
        return Valid({"experiment_id": self._ended()})

    def _delete_analysis(self) -> Valid:
        return Valid({"analysis_id": self._made(f"/api/experiments/{self.lm}/analyses", {"result": ANALYSIS})})

    def _write_report(self) -> Valid:
        return Valid(body={"title": "New", "markdown": "text", "experimentIds": [self.lm]})

    def _make_report(self) -> Valid:
        return Valid(body={"pattern": "full-report", "experimentIds": [self.lm, self.rl]})

    def _render_report(self) -> Valid:
        return Valid(body={"markdown": "# A\n\n```chart\n{}\n```\n"})

    def _change_report(self) -> Valid:
        made = self._made("/api/reports", {"title": "Old", "markdown": "text"})
        return Valid({"report_id": made}, {"title": "New", "markdown": "text", "version": 1})

    def _delete_report(self) -> Valid:
        return Valid({"report_id": self._made("/api/reports", {"title": "Old", "markdown": "text"})})

    def _made(self, path: str, body: dict[str, Any]) -> str:
        return str(self._api.admin.post(path, json=body).raise_for_status().json()["id"])


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
    "POST /api/analyze-trajectories": "analyze",
    "POST /api/experiments/{experiment_id}/analyses": "save_analysis",
    "DELETE /api/experiments/{experiment_id}/analyses": "delete_analyses",
    "DELETE /api/analyses/{analysis_id}": "delete_analysis",
    "POST /api/reports": "write_report",
    "POST /api/reports/generate": "make_report",
    "POST /api/reports/render": "render_report",
    "PUT /api/reports/{report_id}": "change_report",
    "DELETE /api/reports/{report_id}": "delete_report",
}


@dataclass
class Outcome:
    """What a run came to."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Of each operation."""
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """Requests that were sent."""
        return sum(sum(its.values()) for its in self.statuses.values())

    @property
    def successes(self) -> int:
        """Those that were answered with 2xx."""
        return sum(count for its in self.statuses.values() for status, count in its.items() if 200 <= status < 300)

    @property
    def never_reached(self) -> list[str]:
        """Operations without a single 2xx."""
        return [label for label, its in self.statuses.items() if not any(200 <= status < 300 for status in its)]

    def table(self) -> str:
        """One line per operation."""
        lines = [
            f"{label:72} {' '.join(f'{status}×{count}' for status, count in sorted(its.items()))}"
            for label, its in sorted(self.statuses.items())
        ]
        share = self.successes / max(self.cases, 1)
        return "\n".join([*lines, f"{self.cases} cases, {share:.0%} answered with 2xx, {len(self.failures)} failures"])


def run(api: Api, things: Things, *, token: bool, examples: int, coverage: bool, seed: int = 1) -> Outcome:
    """Send `examples` generated requests per operation, with `coverage` also those at the borders of the document."""
    outcome = Outcome()
    headers = BEARER if token else {}
    document = api.http.get("/openapi.json").json()
    phases: dict[str, Any] = {"examples": {"enabled": False}, "stateful": {"enabled": False}}
    phases["coverage"] = {"enabled": coverage, "unexpected-methods": []}
    config = {
        "seed": seed,
        "base-url": api.url,
        "headers": headers,
        "request-timeout": 60,
        "continue-on-failure": True,
        "phases": phases,
        "generation": {"max-examples": examples, "deterministic": True, "database": "none", "no-shrink": True},
        "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
        "suppress-health-check": ["all"],
    }
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))
    turns: Counter[str] = Counter()

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        label = case.operation.label
        turns[label] += 1
        turn = turns[label] % 4
        if case.method == "DELETE":  # schemathesis tries ids that earlier replies held
            others = {
                name: "nosuch" if its in things.kept else its for name, its in (case.path_parameters or {}).items()
            }
            case.path_parameters = others
        if turn == 0:
            return
        if turn == 1:
            valid = things.valid(label)
            case.path_parameters = {**(case.path_parameters or {}), **valid.path}
            case.query = valid.query
            if valid.body is not None:
                case.body = valid.body
                case.media_type = "application/octet-stream" if isinstance(valid.body, bytes) else "application/json"
            return
        stay = {**things.path_values(), **things._plain(label)().path}
        # What a deletion would take away is needed later.
        if case.method != "DELETE":
            case.path_parameters = {name: stay.get(name, its) for name, its in (case.path_parameters or {}).items()}
        if turn == 2:
            case.body = things.substitute(case.body)

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        outcome.statuses[case.operation.label][response.status_code] += 1

    try:
        for event in from_schema(schema.exclude(path=list(STREAMS))).execute():
            if isinstance(event, events.ScenarioFinished):
                for case_id, checks in event.recorder.checks.items():
                    for check in checks:
                        if check.failure_info is not None:
                            case = event.recorder.cases[case_id].value
                            said = str(check.failure_info.failure).replace("\n", " ")[:300]
                            outcome.failures.append(f"{event.recorder.label}: {check.name}: {said}\n  {_shown(case)}")
            elif isinstance(event, events.NonFatalError):
                outcome.failures.append(f"{event.label}: {event.info.title}: {event.info.message}"[:500])
    finally:
        schemathesis.hooks.unregister_all()  # they hold for the whole process
    for operation in (its.ok() for its in schema.include(path=list(STREAMS)).get_all_operations()):
        _heads(api, things, operation, headers, examples, outcome)
    return outcome


def _heads(api: Api, things: Things, operation: Any, headers: dict[str, str], examples: int, outcome: Outcome) -> None:
    """Of a stream only the status is asked; the connection is closed at once."""
    known = {str(status) for status in operation.definition.raw["responses"]}
    for case in _cases(operation, examples):
        if outcome.statuses[operation.label].total() % 2 == 0:
            case.path_parameters = {name: things.path_values()[name] for name in case.path_parameters or {}}
        asked = case.as_transport_kwargs(base_url=api.url, headers=headers)
        with requests.request(**asked, stream=True, timeout=60) as reply:
            outcome.statuses[operation.label][reply.status_code] += 1
            if str(reply.status_code) not in known or reply.status_code >= 500:
                outcome.failures.append(f"{operation.label}: {reply.status_code}\n  {_shown(case)}")


def _cases(operation: Any, examples: int) -> Iterator[Any]:
    found: list[Any] = []

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def collect(case: Any) -> None:
        found.append(case)

    collect()
    return iter(found)


def _shown(case: Any) -> str:
    return f"{case.method} {case.path} path={case.path_parameters} query={case.query} body={str(case.body)[:300]}"
