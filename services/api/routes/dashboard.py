"""`/`: the dashboard's page and its files. Open to everybody; what they show is asked of the api with the token.

The functions are coroutines: files lie in memory, and a page asks for fifty at once.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from common.errors import NotFoundError
from services.api.middleware import CACHE_FOREVER
from services.api.static_files import INDEX, StaticFile, StaticFiles

router = APIRouter(include_in_schema=False)
files = StaticFiles()

CONTENT_POLICY = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
DOCUMENT_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""For what a browser can show as a document; on sixty scripts and styles they say nothing and weigh 15 kB."""
DOCUMENTS = ("text/html", "image/svg+xml")
IMMUTABLE = CACHE_FOREVER
REVALIDATE = "no-cache"
"""Kept, and asked about by ETag each time."""


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The one page; which view it shows stands in the fragment of its address. A proxy's prefix needs its last `/`."""
    return _send(request, files.get(INDEX), REVALIDATE)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def icon(request: Request) -> Response:
    """Browsers ask for it on /docs, too."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/assets/icon.svg", 307)


@router.api_route("/assets/{name:path}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    """A file, with or without the digest in front. A page from before an upgrade gets the new file, not to be kept."""
    found = files.get(name)
    if found is not None:
        return _send(request, found, REVALIDATE)
    digest, _, rest = name.partition("/")
    return _send(request, files.get(rest), IMMUTABLE if digest == files.digest else REVALIDATE)


def _send(request: Request, found: StaticFile | None, caching: str) -> Response:
    if found is None:
        raise NotFoundError(f"there is no file {request.url.path}")
    headers = {**HEADERS, "Cache-Control": caching}
    if caching != IMMUTABLE:  # nobody asks again about what is kept for ever
        headers["ETag"] = found.etag
    if found.content_type.startswith(DOCUMENTS):
        headers.update(DOCUMENT_HEADERS)
    if found.etag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.content_type)
    return Response(found.plain, headers=headers, media_type=found.content_type)
