"""The MCP server with its tools, over stdio or streamable HTTP.

Over HTTP, only requests with a known `Host` are answered, so that no web page can reach a server on this machine by
DNS rebinding. Sessions are not kept: every request stands for itself, so a restart interrupts no client. Clients of the
2025 versions of the protocol are served by the same endpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

from services.mcp.access import Access, reports_errors
from services.mcp.tools.comparison import ComparisonTools
from services.mcp.tools.experiments import ExperimentTools
from services.mcp.tools.generation import GenerationTools
from services.mcp.tools.jobs import JobTools
from services.mcp.tools.manifest import ManifestTools
from services.mcp.tools.reports import ReportTools

PATH = "/mcp"
INSTRUCTIONS = """Tidal trains small language models and controllers that steer their decoding. A job is what was asked
for, an experiment is what it made. Look at get_plugin_manifest before the first submit_job, check with dry_run, wait
with wait_for_job, then compare_experiments. Results are summaries: `omitted` names what was left out, `more` how to get
it."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
READ, WRITE, GENERATE = "read", "write", "generate"


def make_server(access: Access, version: str) -> MCPServer[Any]:
    """Return the server with all tools."""

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[dict[str, Any]]:
        yield {}
        await access.aclose()

    server: MCPServer[Any] = MCPServer(
        "tidal", instructions=INSTRUCTIONS, version=version, lifespan=lifespan, log_level="WARNING"
    )
    experiments, jobs, comparison = ExperimentTools(access), JobTools(access), ComparisonTools(access)
    generation, reports, manifest = GenerationTools(access), ReportTools(access), ManifestTools(access)
    for tool, effect in (
        (experiments.list_experiments, READ),
        (experiments.get_status, READ),
        (experiments.get_checkpoints, READ),
        (experiments.get_evaluation, READ),
        (experiments.get_ablation, READ),
        (experiments.get_gpu_instance, READ),
        (experiments.get_rl_metrics, READ),
        (experiments.get_metrics, READ),
        (jobs.get_jobs, READ),
        (jobs.get_job_logs, READ),
        (manifest.list_plugins, READ),
        (manifest.get_plugin_manifest, READ),
        (experiments.get_config, READ),
        (generation.generate_text, GENERATE),
        (generation.analyze_trajectories, GENERATE),
        (reports.list_patterns, READ),
        (reports.generate_report, WRITE),
        (reports.update_report, WRITE),
        (jobs.submit_job, WRITE),
        (jobs.signal_job, WRITE),
        (jobs.wait_for_job, READ),
        (comparison.compare_experiments, READ),
        (comparison.best_experiments, READ),
        (jobs.explain_failure, READ),
    ):
        server.add_tool(
            reports_errors(tool),
            annotations=ToolAnnotations(
                read_only_hint=effect != WRITE,
                destructive_hint=tool.__name__ in ("signal_job", "update_report"),
                idempotent_hint=effect == READ,
                open_world_hint=False,
            ),
            structured_output=False,  # the text is the result; a structured copy would double the tokens
        )
    return server


def http_app(server: MCPServer[Any], hosts: Sequence[str]) -> Starlette:
    """Return the application that serves streamable HTTP at PATH for the given host names and those of this machine."""
    names = [*LOCAL_HOSTS, *hosts]
    security = TransportSecuritySettings(
        allowed_hosts=[*names, *(f"{name}:*" for name in names)],
        allowed_origins=[
            f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")
        ],
    )
    return server.streamable_http_app(
        streamable_http_path=PATH, stateless_http=True, json_response=False, transport_security=security
    )
