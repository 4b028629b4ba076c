"""Builds the application: `create_app` connects context, middleware, error handlers and routers.

It opens no connection and needs no running database; `/readyz` reports what is missing. `server` runs the application.
`__main__` chooses the token with `auth.administrator_token`.
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
    audit,
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
    tokens,
)
from services.api.token_watch import EndWithToken

DESCRIPTION = """\
Tidal trains small language models, trains a controller that steers their decoding, and generates text from the result.

* **Submit** a job with `POST /api/jobs`, and control it with `POST /api/jobs/{id}/signal`.
* **Follow** a job with the streams (`text/event-stream`). Every event has an id. With `Last-Event-ID` or `?since=` a
  stream continues after that event, without gap or duplicate. If the events after it are no longer stored, the stream
  sends a `reset` event and then a `snapshot`.
* **Generate** text with `POST /api/generate`, as one reply or token by token, and **analyse** what a controller does
  with `POST /api/analyze-trajectories`.

Requests that change something need `Authorization: Bearer <token>`. Reading, generating and analysing need no token,
unless the operator requires one for them. A token has scopes: `read`, `generate`, `submit` (includes read) and `admin`
(includes all); 403 means that the token lacks the scope of the operation.
Times are ISO 8601 in UTC; names are camelCase. Errors are problem documents (RFC 9457) with a stable `code`. A list
has a `nextCursor`; send it as `cursor` to get the next page.
"""

TAGS = [
    {"name": "jobs", "description": "Submit, list and control jobs, and read their logs."},
    {"name": "experiments", "description": "The metrics, configurations and results that jobs produce."},
    {"name": "checkpoints", "description": "List, download and delete the weights of models and controllers."},
    {"name": "datasets", "description": "Upload, list and delete texts for training."},
    {"name": "configs", "description": "The YAML configuration files that a job may name."},
    {"name": "generation", "description": "Generate text from a checkpoint."},
    {"name": "analyses", "description": "Analyse the modulation immediately, and save, list and delete analyses."},
    {
        "name": "reports",
        "description": "Markdown reports with charts, generated or written by hand, with export to HTML and Markdown.",
    },
    {
        "name": "openai",
        "description": "Completions and chat for clients of OpenAI's API; errors have OpenAI's format.",
    },
    {"name": "streams", "description": "Follow jobs and experiments with server-sent events."},
    {"name": "tokens", "description": "Named tokens with scopes, and the audit log. For administrators only."},
    {"name": "service", "description": "Health and metrics of this process."},
]


class Api(FastAPI):
    """A FastAPI application.

    Its OpenAPI document lists every status, the error format, and the operations that need a token.
    """

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, which is built on the first call."""
        if self.openapi_schema is None:
            document = super().openapi()
            openapi.complete_document(document, reads_closed=self.state.context.settings.require_auth_for_reads)
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(settings: Settings, token: str) -> FastAPI:
    """Return the ASGI application; `token` is the administrator's token."""
    context = make_context(settings, token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Write the epoch of the event ids to Redis before any stream begins, because writing it later would reset the
        # streams that have already begun. If Redis is unavailable, the api starts without an epoch.
        with suppress(RedisError):
            await context.hub.ensure_epoch()
        with suppress(OSError):
            # Remove the files of uploads that an earlier process did not finish.
            await run_in_threadpool(context.datasets.remove_abandoned)
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
        # A request for /api/jobs/ gets a 404. With a redirect, some clients would lose the token.
        redirect_slashes=False,
    )
    app.root_path = settings.root_path.rstrip("/")  # a proxy may remove this prefix or keep it
    app.state.context = context
    app.add_middleware(BodyLimit, streams=frozenset({("POST", datasets.PATH)}))
    app.add_middleware(Admission, limit=context.limits.connections)
    app.add_middleware(HostCheck, hosts=KnownHosts(settings.allowed_hosts, listens_on=settings.host))
    app.add_middleware(EndWithToken, tokens=context.tokens)
    app.add_middleware(RequestContext, metrics=context.metrics)
    if settings.allowed_origins:
        app.add_middleware(CrossOrigin, origins=settings.allowed_origins.split(","))
    errors.install(app)
    work = (
        jobs,
        queue,
        experiments,
        checkpoints,
        datasets,
        configs,
        generate,
        completions,
        analyses,
        reports,
        tokens,
        audit,
    )
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
