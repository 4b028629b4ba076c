"""Calls of `Client` on datasets: upload with progress, list, show, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

from .connection import Connection
from .wire.dataset import DatasetDetail, DatasetList, DatasetReply, DatasetUploaded

BLOCK_BYTES = 256 * 1024
PATH = "/api/datasets"
UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=5.0, read=1800.0)
"""The server looks through a parquet file once it has all of it."""


class DatasetCalls(Connection):
    """Part of `Client`."""

    def upload_dataset(
        self,
        path: Path,
        *,
        name: str | None = None,
        kind: str | None = None,
        text_field: str | None = None,
        on_progress: Callable[[int], None] = lambda sent: None,
    ) -> DatasetUploaded:
        """Send a file as it is, in blocks; without a `name` it is called like the file.

        `kind` (txt, jsonl, parquet) is needed where no suffix says it. `on_progress` hears of the bytes sent so far.
        ConflictError when there is other text of this name, InvalidInputError for what is no corpus; OSError when the
        file cannot be read.
        """
        size = path.stat().st_size

        def body() -> Iterator[bytes]:
            sent = 0
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
                    sent += len(block)
                    on_progress(sent)

        query = {"name": name or path.name, "format": kind, "textField": text_field}
        reply = self._request(
            "POST",
            PATH,
            params={key: value for key, value in query.items() if value is not None},
            content=body(),
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            timeout=UPLOAD_TIMEOUT,
        )
        return DatasetUploaded.model_validate(reply.json())

    def datasets(self) -> list[DatasetReply]:
        """All of them, newest first."""
        return self._get(DatasetList, PATH).datasets

    def dataset(self, name: str) -> DatasetDetail:
        """One, with the experiments that name it. NotFoundError."""
        return self._get(DatasetDetail, f"{PATH}/{quote(name, safe='')}")

    def delete_dataset(self, name: str) -> None:
        """Its text and its tokens. ConflictError while a live job needs it."""
        self._request("DELETE", f"{PATH}/{quote(name, safe='')}")
