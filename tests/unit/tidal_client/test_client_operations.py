"""The client has a method for every operation, query parameter and body field of the OpenAPI document."""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.config import Settings
from scripts.sync_client import BY_HAND, TARGET, synchronous_modules
from services.api.app import create_app
from tests.unit import api_documents as documents
from tidal_client import AnalysisResult, AsyncClient, Client, Report
from tidal_client.vocabulary import CheckpointMode

FOLLOWED_BY_THE_CLIENT = {"cursor", "since", "topic"}
"""Query parameters with which the client continues lists and streams; callers do not pass them."""
STREAMED_BY_THE_CLIENT = {"stream"}
"""Body fields that separate methods set."""
RESULT = {"kind": "single", "request": {}, "trajectories": [], "tokensGenerated": 0, "elapsedMs": 1.0}
REPORT = {
    "id": "rep_1",
    "title": "t",
    "experimentIds": [],
    "version": 3,
    "createdAt": documents.TIME,
    "updatedAt": documents.TIME,
    "markdown": "m",
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "submit_job": {
        "config": {"a": 1},
        "config_path": "c.yaml",
        "rl_config_path": "r.yaml",
        "data": {"source": "x"},
        "checkpoint": "x/final",
        "checkpoint_mode": CheckpointMode.CONTINUE,
        "rl_checkpoint": "y/final",
        "resume_from": "job_1",
        "priority": 1,
        "name": "n",
        "tags": ["t"],
        "not_before": datetime(2026, 1, 31, tzinfo=UTC),
        "gpus": 1,
        "queue": True,
    },
    "generate": {
        "max_tokens": 1,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "gating_mode": "none",
        "modulation": 0.5,
        "rl_checkpoint": "y/final",
        "stop": ["."],
        "seed": 1,
    },
    "analyze": {
        "rl_checkpoint": "y/final",
        "kind": "single",
        "samples_per_prompt": 1,
        "max_tokens": 1,
        "gating_mode": "fixed",
        "modulation": 0.5,
        "seed": 1,
        "bootstrap": True,
        "include_extreme_values": True,
    },
}

CALLS: dict[str, Callable[[Client], Any]] = {
    "active_jobs": lambda client: client.active_jobs(),
    "ablation": lambda client: client.ablation("x"),
    "headroom": lambda client: client.headroom("x"),
    "alive": lambda client: client.alive(),
    "all_checkpoints": lambda client: client.all_checkpoints(),
    "analyses": lambda client: client.analyses("x", kind="single", derived=True),
    "analysis": lambda client: client.analysis("ana_1"),
    "analyze": lambda client: client.analyze("x/final", ["a"], **PARAMETERS["analyze"]),
    "audit": lambda client: client.audit(actor="a", action="job", target="x", since=datetime(2026, 1, 1, tzinfo=UTC)),
    "cancel_job": lambda client: client.cancel_job("job_1"),
    "change_experiment": lambda client: client.change_experiment("x", name=None, tags=[], notes="n"),
    "change_report": lambda client: client.change_report(Report.model_validate(REPORT)),
    "chat": lambda client: client.chat("x/final", [{"role": "user", "content": "a"}]),
    "chat_stream": lambda client: list(client.chat_stream("x/final", [{"role": "user", "content": "a"}])),
    "checkpoints": lambda client: client.checkpoints("x"),
    "complete": lambda client: client.complete("x/final", "a"),
    "complete_stream": lambda client: list(client.complete_stream("x/final", "a")),
    "config": lambda client: client.config("demo/lm.yaml"),
    "configs": lambda client: client.configs(),
    "create_report": lambda client: client.create_report("t", "m", experiments=["x"]),
    "create_token": lambda client: client.create_token("n", ["read"], expires_at=datetime(2040, 1, 1, tzinfo=UTC)),
    "dataset": lambda client: client.dataset("a/b"),
    "datasets": lambda client: client.datasets(),
    "delete_analyses": lambda client: client.delete_analyses("x"),
    "delete_analysis": lambda client: client.delete_analysis("ana_1"),
    "delete_checkpoint": lambda client: client.delete_checkpoint("x", "checkpoints/step-1"),
    "delete_dataset": lambda client: client.delete_dataset("d"),
    "delete_experiment": lambda client: client.delete_experiment("x"),
    "delete_report": lambda client: client.delete_report("rep_1"),
    "download_checkpoint": lambda client: client.download_checkpoint("x", "a/b", Path("f"), file_format="pth"),
    "download_log": lambda client: client.download_log("job_1", Path("f")),
    "evaluation": lambda client: client.evaluation("x"),
    "experiment": lambda client: client.experiment("x"),
    "experiment_config": lambda client: client.experiment_config("x"),
    "experiment_status": lambda client: client.experiment_status("x"),
    "experiment_tags": lambda client: client.experiment_tags(),
    "experiments": lambda client: client.experiments(kind=["lm", "rl"], status="failed", tag="t", search="s"),
    "export_report": lambda client: client.export_report("rep_1", "md"),
    "follow_experiment": lambda client: next(client.follow_experiment("x")),
    "follow_job": lambda client: next(client.follow_job("job_1")),
    "follow_jobs": lambda client: next(client.follow_jobs()),
    "follow_topics": lambda client: next(client.follow_topics(["jobs", "experiments/x"])),
    "generate": lambda client: client.generate("x/final", "a", **PARAMETERS["generate"]),
    "generate_report": lambda client: client.generate_report("full-report", ["x"], title="t"),
    "generate_stream": lambda client: list(client.generate_stream("x/final", "a")),
    "job": lambda client: client.job("job_1"),
    "job_events": lambda client: client.job_events("job_1"),
    "job_logs": lambda client: client.job_logs("job_1", cursor="1", search="s", limit=5),
    "jobs": lambda client: client.jobs(status=["failed"], job_type="lm-training", tag="t", experiment="x"),
    "last_log_lines": lambda client: client.last_log_lines("job_1", 5),
    "metrics": lambda client: [
        client.metrics("x", keys=["a"], mode="recent", window=9, max_points=9, from_step=0, to_step=9)
    ],
    "model": lambda client: client.model("x/final"),
    "models": lambda client: client.models(),
    "predict_job": lambda client: client.predict_job("lm-training", **PARAMETERS["submit_job"]),
    "prometheus_metrics": lambda client: client.prometheus_metrics(),
    "queues": lambda client: client.queues(limit=5),
    "ready": lambda client: client.ready(),
    "render_markdown": lambda client: client.render_markdown("m"),
    "rendered_report": lambda client: client.rendered_report("rep_1"),
    "report": lambda client: client.report("rep_1"),
    "report_patterns": lambda client: client.report_patterns(),
    "reports": lambda client: client.reports(search="s", experiment="x"),
    "revoke_token": lambda client: client.revoke_token("tok_1"),
    "sample_history": lambda client: client.sample_history("x", max_rows=5),
    "samples": lambda client: client.samples("x"),
    "save_analysis": lambda client: client.save_analysis("x", AnalysisResult.model_validate(RESULT), name="n"),
    "session": lambda client: client.session(),
    "signal_job": lambda client: client.signal_job("job_1", "pause"),
    "storage": lambda client: client.storage(),
    "submit_job": lambda client: client.submit_job("lm-training", **PARAMETERS["submit_job"]),
    "token": lambda client: client.token("tok_1"),
    "tokens": lambda client: client.tokens(valid=True),
    "upload_dataset": lambda client: client.upload_dataset(
        Path(__file__), name="d.txt", file_format="txt", text_field="text"
    ),
    "vocabulary": lambda client: client.vocabulary("x"),
    "wait": lambda client: client.wait("job_1"),
}
"""One call of each public method, with every parameter."""
MORE_CALLS: list[Callable[[Client], Any]] = [
    lambda client: client.metrics("x", rl=True, keys=["a"], window=9, max_points=9, from_step=0, to_step=9),
]
NO_REQUEST = {"close"}


class Sent(Exception):
    """Raised in place of an answer."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = create_app(Settings(_env_file=None), "administrator-token").openapi()
    return found


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[httpx.Request]:
    """The first request of each method."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        raise Sent

    with pytest.MonkeyPatch.context() as patch, Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        patch.chdir(tmp_path_factory.mktemp("downloads"))
        for call in [*CALLS.values(), *MORE_CALLS]:
            with pytest.raises(Sent):
                call(client)
    return seen


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, found in document["paths"].items() for method in found]


def matched(document: dict[str, Any], request: httpx.Request) -> tuple[str, str]:
    """Return the operation that answers a request: the one with the most literal path."""
    fitting = [
        (method, path)
        for method, path in operations(document)
        if method == request.method
        and re.fullmatch(re.sub(r"\{(name|file)\}", ".+", re.sub(r"\{\w+_id\}", "[^/]+", path)), request.url.path)
    ]
    assert fitting, f"no operation answers {request.method} {request.url}"
    return min(fitting, key=lambda operation: operation[1].count("{"))


def test_every_operation_has_a_method(document: dict[str, Any], requests: list[httpx.Request]) -> None:
    assert {matched(document, request) for request in requests} == set(operations(document))


def test_every_query_parameter_and_body_field_can_be_sent_and_no_other(
    document: dict[str, Any], requests: list[httpx.Request]
) -> None:
    queries: dict[tuple[str, str], set[str]] = defaultdict(set)
    bodies: dict[tuple[str, str], set[str]] = defaultdict(set)
    for request in requests:
        operation = matched(document, request)
        queries[operation] |= set(request.url.params)
        if request.headers.get("Content-Type") == "application/json":
            bodies[operation] |= set(json.loads(request.content) or {})
    for (method, path), sent in queries.items():
        operation = document["paths"][path][method.lower()]
        names = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
        assert sent | FOLLOWED_BY_THE_CLIENT >= names >= sent, (method, path)
    for (method, path), sent in bodies.items():
        if path.startswith("/v1/"):
            continue  # the fields are OpenAI's, and callers pass them under their own names
        content = document["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
        if not content:
            assert not sent, (method, path)
            continue
        schema = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        names = set(document["components"]["schemas"][schema]["properties"])
        one_of_two = {"experimentId"} if path == "/api/reports/generate" else set()
        kept = {"experimentIds"} if path == "/api/reports/{report_id}" else set()
        assert sent | STREAMED_BY_THE_CLIENT | one_of_two | kept >= names >= sent, (method, path)


def public_methods(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: method for name, method in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}


def test_every_method_is_called_here_and_both_clients_have_the_same_ones() -> None:
    methods = public_methods(Client)
    assert set(CALLS) | NO_REQUEST == set(methods)
    asynchronous = {name.replace("aclose", "close"): each for name, each in public_methods(AsyncClient).items()}
    assert {name: list(inspect.signature(each).parameters) for name, each in asynchronous.items()} == {
        name: list(inspect.signature(each).parameters) for name, each in methods.items()
    }


def test_the_synchronous_client_is_generated_from_the_asynchronous_one() -> None:
    wanted = synchronous_modules()
    present = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.py") if path.name not in BY_HAND}
    assert present == wanted, "run `python -m scripts.sync_client`"
    assert not any(re.search(r"\basync |\bawait |Async", text) for text in present.values())


def test_a_name_in_a_path_is_quoted() -> None:
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(204)

    with Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        client.delete_dataset("a/b?c")
        client.delete_checkpoint("x/y", "checkpoints/step 1")
    assert seen == [b"/api/datasets/a%2Fb%3Fc", b"/api/experiments/x%2Fy/checkpoints/checkpoints/step%201"]
