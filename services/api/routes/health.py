"""`/healthz`, `/readyz` and `/metrics`: liveness, readiness and the metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from services.api.auth import ContextDep, Reader
from services.api.errors import problem
from services.api.operations import health, prometheus_metrics
from services.api.schemas.problems import problem_responses
from tidal_client.wire.health import Alive, Ready

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Check liveness", response_model=Alive)
async def healthz(request: Request) -> Alive:
    """Answers 200 while the process runs. Does not check the database or Redis."""
    return Alive(version=request.app.version)


@router.get("/readyz", summary="Check readiness", response_model=Ready, responses=problem_responses(503))
async def readyz(request: Request, context: ContextDep) -> Ready | Response:
    """Answers 200 when database, schema, Redis and artifact store are usable; otherwise 503, with each problem
    and its remedy.

    A disk with too little free space and a reaper that does not report are shown as not ok, but do not cause a 503,
    because requests are still served.
    """
    ready = await health.readiness(context)
    if ready.ready:
        return ready
    missing = [
        {"location": name, "message": part.detail}
        for name, part in ready.parts.items()
        if part.required and not part.ok
    ]
    return problem(
        503,
        "; ".join(f"{item['location']}: {item['message']}" for item in missing),
        code="not_ready",
        errors=missing,
        headers={"Retry-After": "5"},
        request_id=request.state.request_id,
    )


@router.get("/metrics", summary="Show metrics for Prometheus", dependencies=[Reader], response_class=Response)
async def metrics(context: ContextDep) -> Response:
    """Returns metrics in the text format of Prometheus. Needs a token only if reads need one."""
    return Response(await prometheus_metrics.exposition(context), media_type=CONTENT_TYPE_LATEST)
