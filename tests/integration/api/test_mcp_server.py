"""The MCP server with the client of the package `mcp`, over stdio and HTTP, in front of the real api."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import text

from common.jobs.claiming import claim_job
from common.jobs.ownership import fail_job
from common.jobs.retry import Fault
from services.mcp.access import Access
from services.mcp.cache import DiskCache
from services.mcp.server import http_app, make_server
from tests.browser.seed import add_experiment
from tests.integration.api.conftest import TOKEN, Api
from tests.paths import ROOT

ORIGINAL = {
    *("list_experiments", "get_status", "get_checkpoints", "get_evaluation", "get_ablation", "get_gpu_instance"),
    *("get_rl_metrics", "get_metrics", "get_jobs", "get_job_logs", "list_plugins", "get_plugin_manifest", "get_config"),
    *("generate_text", "analyze_trajectories", "list_patterns", "generate_report", "update_report"),
}
NEW = {"submit_job", "signal_job", "wait_for_job", "compare_experiments", "best_experiments", "explain_failure"}
Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def experiments(api: Api) -> list[str]:
    """Three completed experiments; the third has a configuration and metrics of a controller."""
    with api.context.sessions.begin() as session:
        folder = api.settings.experiments_dir
        found = [add_experiment(session, folder, f"run {n}", "lm", 40 + n, number=n) for n in (1, 2)]
        found.append(add_experiment(session, folder, "steered", "rl", 20, number=3))
    evaluation = folder / found[0] / "evaluation_results" / "evaluation_results.json"
    evaluation.write_text(json.dumps({"perplexity": 9.0, "samples": [{"prompt": "Tom", "generated": "x" * 20_000}]}))
    return found


@pytest.fixture
def failed_job(api: Api) -> str:
    job_id = str(api.submit(name="doomed")["id"])
    with api.context.sessions.begin() as session:
        job = claim_job(session, "training", "worker-7", api.settings)
        assert job is not None and job.id == job_id
        attempt, experiment_id = job.attempt, job.experiment_id
    with api.context.sessions.begin() as session:
        fail_job(session, job_id, attempt, Fault.USER_ERROR, "there is no corpus 'x'", settings=api.settings)
    log = api.experiment_folder(experiment_id) / "logs" / f"{attempt}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("loading\nFileNotFoundError: no such corpus: x\nend\n")
    return job_id


@contextmanager
def serve_http(api: Api, cache: Path, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """Run the server over HTTP in a thread; yield its URL."""
    access = Access(api.url, None, DiskCache(cache), from_requests=True)
    app = http_app(make_server(access, "1.0"), hosts)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(params=["stdio", "http", "http with a client of 2025"])
def connect(request: pytest.FixtureRequest, api: Api, tmp_path: Path) -> Iterator[Connect]:
    """Return a function that connects to the server over one of the transports, with the token of the caller."""
    cache = tmp_path / "cache"
    mode = "legacy" if "2025" in request.param else "auto"
    if request.param == "stdio":

        @asynccontextmanager
        async def over_stdio(token: str | None = TOKEN) -> AsyncIterator[Client]:
            environment = {"TIDAL_URL": api.url, "TIDAL_AUTH_TOKEN": token or "", "PYTHONPATH": str(ROOT)}
            command = ["-m", "services.cli", "mcp", "--cache-dir", str(cache)]
            parameters = StdioServerParameters(
                command=sys.executable, args=command, env={**environment, "PATH": os.environ["PATH"]}, cwd=tmp_path
            )
            async with Client(parameters) as client:
                yield client

        yield over_stdio
        return
    with serve_http(api, cache) as url:

        @asynccontextmanager
        async def over_http(token: str | None = TOKEN) -> AsyncIterator[Client]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
                Client(streamable_http_client(url, http_client=http), mode=mode) as client,
            ):
                yield client

        yield over_http


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool and return its result."""
    reply = await client.call_tool(tool, arguments)
    [content] = reply.content
    assert not reply.is_error, content.text
    found: dict[str, Any] = json.loads(content.text)
    return found


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that fails and return the message."""
    reply = await client.call_tool(tool, arguments)
    assert reply.is_error
    return str(reply.content[0].text)


def requests_about_experiments(api: Api) -> float:
    """Return the number of requests about single experiments that the api has answered."""
    lines = api.http.get("/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("tidal_http_request_seconds_count")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts if "/api/experiments/{experiment_id}" in line)


def run(connect: Connect, work: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    async def connected() -> Any:
        async with connect(**options) as client:
            return await work(client)

    return asyncio.run(connected())


def test_list_submit_watch_compare_and_explain_a_failure(
    connect: Connect, api: Api, experiments: list[str], failed_job: str
) -> None:
    async def work(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == ORIGINAL | NEW
        listed = await call(client, "list_experiments", kind="lm")
        assert {each["id"] for each in listed["experiments"]} >= set(experiments[:2])

        config = {"data": {"source": "builtin:stories"}, "training": {"max_steps": 3}}
        predicted = await call(client, "submit_job", job_type="lm-training", config=config, dry_run=True)
        assert predicted["valid"] is True
        submission = {"job_type": "lm-training", "config": config, "name": "night", "idempotency_key": "one"}
        job = await call(client, "submit_job", **submission)
        assert (await call(client, "submit_job", **submission))["id"] == job["id"]
        waited = await call(client, "wait_for_job", job_id=job["id"], seconds=0.1)
        assert (waited["ended"], waited["status"]) == (False, "pending")
        assert (await call(client, "signal_job", job_id=job["id"], signal="cancel"))["status"] == "cancelled"
        assert (await call(client, "wait_for_job", job_id=job["id"]))["ended"] is True
        assert job["id"] in {each["id"] for each in (await call(client, "get_jobs"))["jobs"]}

        compared = await call(client, "compare_experiments", experiment_ids=experiments[:2])
        assert compared["differentConfiguration"]["training.max_steps"] == {experiments[0]: 41, experiments[1]: 42}
        assert "Losses/Validation" in compared["experiments"][0]["metrics"]
        failure = await call(client, "explain_failure", job_or_experiment=failed_job)
        assert failure["error"] == {"code": "user_error", "message": "there is no corpus 'x'"}
        assert failure["suspiciousLines"] == ["FileNotFoundError: no such corpus: x"]
        where = await call(client, "get_gpu_instance", experiment_id=failure["experiment"])
        assert where["jobs"][0]["attempts"][0]["worker"] == "worker-7"

    run(connect, work)
    with api.context.sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs WHERE name = 'night'")) == 1


def test_the_second_read_of_a_completed_experiment_sends_no_request(
    connect: Connect, api: Api, experiments: list[str], failed_job: str
) -> None:
    lm, _, rl = experiments

    async def read(client: Client) -> list[dict[str, Any]]:
        return [
            await call(client, "get_status", experiment_id=lm),
            await call(client, "get_config", experiment_id=lm),
            await call(client, "get_metrics", experiment_id=lm, keys=["Losses/Total"]),
            await call(client, "get_evaluation", experiment_id=lm),
            await call(client, "get_checkpoints", experiment_id=lm),
            await call(client, "get_rl_metrics", experiment_id=rl),
            await call(client, "get_ablation", experiment_id=rl),
        ]

    first = run(connect, read)
    before = requests_about_experiments(api)
    assert run(connect, read) == first  # another process, or another connection
    assert requests_about_experiments(api) == before
    # Another token must not get what this one has read, and a failed experiment is not cached.
    run(connect, read, token=None)
    between = requests_about_experiments(api)
    assert between == 2 * before
    failed = api.http.get(f"/api/jobs/{failed_job}").json()["experimentId"]
    for _ in range(2):
        run(connect, lambda client: call(client, "get_status", experiment_id=failed))
    assert requests_about_experiments(api) == between + 4


def test_the_token_decides_what_a_call_may_do(connect: Connect, experiments: list[str]) -> None:
    async def work(client: Client) -> None:
        assert (await call(client, "list_experiments"))["experiments"]
        assert "unauthorized: " in await refusal(client, "submit_job", job_type="lm-training")

    run(connect, work, token=None)


def test_results_fit_the_budget_and_name_what_is_left_out(connect: Connect, experiments: list[str]) -> None:
    async def work(client: Client) -> None:
        for budget in (200, 1500, 20_000):
            reply = await client.call_tool("get_evaluation", {"experiment_id": experiments[0], "max_tokens": budget})
            assert len(reply.content[0].text) <= 3 * budget
        short = await call(client, "get_evaluation", experiment_id=experiments[0])
        assert short["omitted"][0].startswith("result.samples.0.generated: ") and "of 20,000" in short["omitted"][0]
        assert "part" in short["more"] and short["result"]["perplexity"] == 9.0
        part = await call(client, "get_evaluation", experiment_id=experiments[0], part="perplexity")
        assert part == {"result": 9.0}
        message = await refusal(client, "get_evaluation", experiment_id=experiments[0], part="loss")
        assert "perplexity, samples" in message
        schema = await call(client, "get_plugin_manifest", job_type="lm-training", part="training.max_steps")
        assert schema["config"]["type"] == "integer or null"

    run(connect, work)


def test_the_best_experiments_of_a_query(connect: Connect, experiments: list[str]) -> None:
    async def work(client: Client) -> None:
        best = await call(client, "best_experiments", status=None, kind="lm")
        values = [each["value"] for each in best["best"]]
        assert values == sorted(values) and {each["id"] for each in best["best"]} == set(experiments[:2])
        where = {"training.max_steps": {"min": 42, "max": 42}, "training.learning_rate": 0.003}
        found = await call(client, "best_experiments", status=None, where=where)
        assert [each["id"] for each in found["best"]] == [experiments[1]]
        reward = await call(client, "best_experiments", metric="episode_reward", highest=True, status=None)
        assert [each["id"] for each in reward["best"]] == [experiments[2]]
        number = await call(client, "best_experiments", metric="evaluation.perplexity", status=None)
        assert [each["value"] for each in number["best"]] == [9.0]
        assert "min and max" in await refusal(client, "best_experiments", status=None, where={"a": {"below": 1}})

    run(connect, work)


def test_reports_are_generated_read_and_changed(connect: Connect, experiments: list[str]) -> None:
    async def work(client: Client) -> None:
        patterns = {each["name"] for each in (await call(client, "list_patterns"))["patterns"]}
        assert "experiment-overview" in patterns
        made = await call(client, "generate_report", pattern="experiment-overview", experiment_ids=experiments[:1])
        changed = await call(client, "update_report", report_id=made["id"], version=1, markdown="# New")
        assert changed["version"] == 2
        assert (await call(client, "update_report", report_id=made["id"]))["markdown"] == "# New"
        assert "report_changed" in await refusal(
            client, "update_report", report_id=made["id"], version=1, markdown="# Old"
        )

    run(connect, work)


def test_only_known_host_names_are_answered(api: Api, tmp_path: Path) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Accept": "application/json, text/event-stream"}
    with serve_http(api, tmp_path / "cache", ("tidal.example.org",)) as url:
        statuses = {
            host: httpx.post(url, json=body, headers={**headers, "Host": host}, trust_env=False).status_code
            for host in ("evil.example", "evil.example:80", "tidal.example.org", "localhost:4402")
        }
        cross = httpx.post(url, json=body, headers={**headers, "Origin": "https://evil.example"}, trust_env=False)
    assert statuses.pop("evil.example") == statuses.pop("evil.example:80") == 421
    assert all(status != 421 for status in statuses.values())
    assert cross.status_code == 403


@pytest.mark.timeout(300)
def test_a_cache_that_cannot_be_written_is_reported(api: Api, experiments: list[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    access = Access(api.url, TOKEN, DiskCache(blocked / "cache"), from_requests=False)

    async def read() -> dict[str, Any]:
        async with Client(make_server(access, "1.0")) as client:
            return await call(client, "get_status", experiment_id=experiments[0])

    assert "cannot be written" in asyncio.run(read())["cacheProblem"]
    arguments = [sys.executable, "-m", "services.mcp", "--cache-dir", str(blocked / "cache"), "--url", api.url]
    ended = subprocess.run(arguments, input="", capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert (ended.returncode, ended.stdout) == (0, "") and "cannot be written" in ended.stderr
