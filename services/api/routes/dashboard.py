"""`/`: the dashboard's page and its files, which need no token. The page sends the user's token when it requests data.

A page requests fifty files at once. A thread for each request would only cost time, because the files are in memory.
Therefore the handlers are coroutines, which do not run in threads.
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
"""Headers of files that a browser can show as documents. Scripts and styles are sent without these headers, which saves
15 kB per page."""
DOCUMENTS = ("text/html", "image/svg+xml")
IMMUTABLE = CACHE_FOREVER
REVALIDATE = "no-cache"
"""`Cache-Control` of files that a browser may store, but must revalidate by ETag before each use."""


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Return the dashboard's page. The fragment of its URL selects the view."""
    return _send(request, files.get(INDEX), REVALIDATE)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def icon(request: Request) -> Response:
    """Redirect to the icon of the dashboard. Browsers also request /favicon.ico for /docs."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/assets/icon.svg", 307)


@router.api_route("/assets/{name:path}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    """Return a file of the dashboard.

    Its name may begin with the digest of all files. A page that was loaded before an upgrade requests files with the
    old digest. It gets the new files with a header that makes the browser revalidate them.
    """
    found = files.get(name)
    if found is not None:
        return _send(request, found, REVALIDATE)
    digest, _, rest = name.partition("/")
    return _send(request, files.get(rest), IMMUTABLE if digest == files.digest else REVALIDATE)


def _send(request: Request, found: StaticFile | None, caching: str) -> Response:
    if found is None:
        raise NotFoundError(f"there is no file {request.url.path}")
    headers = {**HEADERS, "Cache-Control": caching}
    if caching != IMMUTABLE:  # a browser never revalidates immutable files, so they need no ETag
        headers["ETag"] = found.etag
    if found.content_type.startswith(DOCUMENTS):
        headers.update(DOCUMENT_HEADERS)
    if found.etag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.content_type)
    return Response(found.plain, headers=headers, media_type=found.content_type)
