"""Downloads files. After a broken connection, a download continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from ..errors import UnavailableError
from ..problems import error_of_response
from ..requests import SILENCE_SECONDS, unavailable_error, without_none
from ..retries import seconds_after_error
from .connection import AsyncApiConnection
from .runtime import async_sleep_for, async_write_to


class AsyncFileCalls(AsyncApiConnection):
    """Downloads of `AsyncClient`."""

    async def _download(
        self, path: str, to: Path, *, on_progress: Callable[[int], None] = lambda received: None, **query: Any
    ) -> Path:
        """Write the file at `path` to `to`, through a temporary file beside it, and return `to`.

        `on_progress` is called with the number of bytes received so far. Each broken connection is followed by another
        request for the missing part, up to `retries` times in a row without progress. A file that the server has
        replaced meanwhile, or that it cannot send in parts, is received anew. Raises OSError if a file cannot be
        written.
        """
        part = to.with_name(f".{to.name}.part")
        try:
            with part.open("wb") as file:
                await self._receive(path, file, on_progress, without_none(query))
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    async def _receive(
        self, path: str, file: BinaryIO, on_progress: Callable[[int], None], query: dict[str, Any]
    ) -> None:
        version: str | None = None
        failures = 0
        while True:
            start = file.tell()
            headers = {"Accept-Encoding": "identity"}
            if start and version is not None:
                headers |= {"Range": f"bytes={start}-", "If-Range": version}
            request = self._build_request("GET", path, params=query, headers=headers, timeout=SILENCE_SECONDS)
            response = await self._send(request, repeatable=True, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise error_of_response(response)
                if response.status_code != 206:
                    file.seek(0)
                    file.truncate()
                version = response.headers.get("ETag")
                async for block in response.aiter_bytes():
                    await async_write_to(file, block)
                    on_progress(file.tell())
                return
            except httpx.TransportError as error:
                failures = 0 if file.tell() > start else failures + 1
                wait = seconds_after_error(error, failures, repeatable=True)
                if wait is None or failures > self.retries:
                    raise _cut(self.url, file.tell(), error) from error
            finally:
                await response.aclose()
            await async_sleep_for(wait)


def _cut(url: str, received: int, error: httpx.TransportError) -> Exception:
    if received:
        return UnavailableError(f"the download from {url} was interrupted after {received:,} bytes: {error}")
    return unavailable_error(url, error)
