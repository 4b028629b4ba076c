"""Methods of `AsyncClient` for datasets: upload with progress, list, show, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ..requests import BLOCK_BYTES, UPLOAD_TIMEOUT, segment, without_none
from ..wire.dataset import DatasetDetail, DatasetList, DatasetReply, DatasetUploaded
from .connection import AsyncApiConnection
from .runtime import async_read_from

PATH = "/api/datasets"


class AsyncDatasetCalls(AsyncApiConnection):
    """Methods of `AsyncClient` for datasets."""

    async def upload_dataset(
        self,
        path: Path,
        *,
        name: str | None = None,
        file_format: str | None = None,
        text_field: str | None = None,
        on_progress: Callable[[int], None] = lambda sent_bytes: None,
    ) -> DatasetUploaded:
        """Upload a file unchanged, in blocks. The default of `name` is the name of the file.

        `file_format` (txt, jsonl, parquet) is required if `name` does not end in .txt, .jsonl or .parquet.
        `on_progress` is called with the number of bytes sent so far. Raises ConflictError if a dataset of this name
        contains other text, InvalidInputError if the file has no usable text, and OSError if the file cannot be read.
        """
        size = path.stat().st_size

        async def body() -> AsyncIterator[bytes]:
            sent = 0
            with path.open("rb") as file:
                while block := await async_read_from(file, BLOCK_BYTES):
                    yield block
                    sent += len(block)
                    on_progress(sent)

        reply = await self._request(
            "POST",
            PATH,
            params=without_none({"name": name or path.name, "format": file_format, "textField": text_field}),
            content=body(),
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            timeout=UPLOAD_TIMEOUT,
        )
        return DatasetUploaded.model_validate_json(reply.content)

    async def datasets(self) -> list[DatasetReply]:
        """Return all datasets, newest first."""
        return (await self._get(DatasetList, PATH)).datasets

    async def dataset(self, name: str) -> DatasetDetail:
        """Return a dataset with the experiments that use it. Raises NotFoundError."""
        return await self._get(DatasetDetail, f"{PATH}/{segment(name)}")

    async def delete_dataset(self, name: str) -> None:
        """Delete a dataset: its text and its tokens. Raises NotFoundError, or ConflictError if a job needs it."""
        await self._request("DELETE", f"{PATH}/{segment(name)}")
