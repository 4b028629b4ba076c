"""The application: `create_app(settings)` wires context, layers, handlers and routers.

It opens no connection and needs no running database; `/readyz` says what is missing. `python -m services.api` serves
it (`server.py`). Leaves out: choosing the token, which `__main__` does with `auth.administrator_token`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from common.access import KnownHosts
from common.config import Settings
from services.api import docs, errors, openapi
from services.api.admission import Admission
from services.api.context import make_context
from services.api.cross_origin import CrossOrigin
from services.api.host_check import HostCheck
from services.api.middleware import BodyLimit, RequestContext
from services.api.routes import (
    analyses,
    checkpoints,
    completions,
    configs,
    dashboard,
    datasets,
    experiments,
    generate,
    health,
    jobs,
    queue,
    reports,
    session,
    storage,
    streams,
)

DESCRIPTION = """\
Tidal trains small language models, trains a controller that steers their decoding, and generates text from the result.

* **Submit** a job with `POST /api/jobs`, steer it with `POST /api/jobs/{id}/signal`.
* **Follow** it with the streams (`text/event-stream`): every event has an id, `Last-Event-ID` or `?since=` goes on
  without gap or duplicate, a `reset` event says that the position is gone and a `snapshot` follows.
* **Generate** with `POST /api/generate`, as a whole or token by token; **analyse** what a
  controller does with `POST /api/analyze-trajectories`.

Everything that changes something needs `Authorization: Bearer <token>`; reading, generating and analysing are open
unless the operator closed them.
Times are ISO 8601 in UTC, names camelCase. Errors are problem documents (RFC 9457) with a stable `code`. A list carries
`nextCursor`; send it as `cursor` for the next page.
"""

TAGS = [
    {"name": "jobs", "description": "Work that was asked for: submit, list, steer, logs."},
    {"name": "experiments", "description": "What jobs made: metrics, configuration, results."},
    {"name": "checkpoints", "description": "Weights: list and download."},
    {"name": "datasets", "description": "Text of your own: upload, list, delete."},
    {"name": "configs", "description": "The YAML files a job may name."},
    {"name": "generation", "description": "Text from a checkpoint."},
    {"name": "analyses", "description": "What is done with the modulation, computed at once or kept."},
    {
        "name": "reports",
        "description": "Markdown with charts, made from patterns and edited; HTML and Markdown export.",
    },
    {"name": "openai", "description": "The same for clients of OpenAI's API; errors have its shape."},
    {"name": "streams", "description": "Server-sent events."},
    {"name": "service", "description": "Health and metrics of this process."},
]


class Api(FastAPI):
    """A FastAPI whose document knows every status and the shape of an error, and what works without a token."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            openapi.complete_document(document, reads_closed=self.state.context.settings.require_auth_for_reads)
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(settings: Settings, token: str) -> FastAPI:
    """The ASGI application; `token` is the administrator's."""
    context = make_context(settings, token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Streams that begin before the epoch was written are reset once; so write it first. Redis may be away.
        with suppress(RedisError):
            await context.hub.ensure_epoch()
        with suppress(OSError):
            await run_in_threadpool(context.datasets.sweep)  # of uploads that died with an api
        try:
            yield
        finally:
            await context.close()

    app = Api(
        title="Tidal",
        summary="Train small language models and steer their decoding.",
        description=DESCRIPTION,
        version=_version(),
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # /api/jobs/ is a mistake to be told, not a redirect that loses the token.
        redirect_slashes=False,
    )
    app.root_path = settings.root_path.rstrip("/")  # whether the proxy takes the prefix off or leaves it
    app.state.context = context
    app.add_middleware(BodyLimit, streams=frozenset({("POST", datasets.PATH)}))
    app.add_middleware(Admission, limit=context.limits.connections)
    app.add_middleware(HostCheck, hosts=KnownHosts(settings.allowed_hosts, listens_on=settings.host))
    app.add_middleware(RequestContext, metrics=context.metrics)
    if settings.allowed_origins:
        app.add_middleware(CrossOrigin, origins=settings.allowed_origins.split(","))
    errors.install(app)
    work = (jobs, queue, experiments, checkpoints, datasets, configs, generate, completions, analyses, reports)
    for module in (health, session, storage, streams, *work):
        app.include_router(module.router)
    for module in (docs, dashboard):
        app.include_router(module.router)
    return app


def _version() -> str:
    try:
        return metadata.version("tidal")
    except metadata.PackageNotFoundError:
        return "0+unknown"
