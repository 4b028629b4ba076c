"""Stores the body of an upload as a dataset, block by block, with `common.datasets` in a worker thread.

Memory use does not depend on the size of the body. If the client disconnects, no files of the upload remain. An invalid
upload is answered at once, and the server discards the rest of the body. `datasets.ensure_tokenised` submits the job
that tokenises the dataset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass

import anyio
from starlette.concurrency import run_in_threadpool

from common.config import Settings
from common.datasets import (
    FORMATS,
    DatasetIntake,
    DatasetManifest,
    DatasetStore,
    check_name,
    file_name_problem,
    split_name,
)
from common.disk import MIB
from common.errors import DataError, InvalidInputError, StorageError, TooLargeError
from common.files import require_space, storage_errors
from tidal_client.vocabulary import DatasetFormat

BLOCK_BYTES = 1024 * 1024
"""Size of the blocks in which the body is written."""


@dataclass(frozen=True)
class UploadParameters:
    """The checked parameters of an upload request."""

    name: str
    format: DatasetFormat
    text_field: str


def check_parameters(name: str, kind: DatasetFormat | None, text_field: str) -> UploadParameters:
    """Check the parameters of a request. A suffix of `name` determines the format and is removed from the name.

    Raises InvalidInputError for a name that is not allowed for datasets, and for a suffix of another file type, even if
    `kind` is given.
    """
    plain, by_suffix = split_name(name)
    if by_suffix is None and (problem := file_name_problem(name)) is not None:
        raise InvalidInputError.at("query.name", f"{name[:80]!r}: {problem}")
    check_name(plain)
    chosen = kind or by_suffix
    for known in FORMATS:
        if chosen == known:
            return UploadParameters(plain, known, text_field)
    message = f"the format is unknown; give format={' or '.join(FORMATS)}, or a name with a suffix, such as {plain}.txt"
    raise InvalidInputError.at("query.format", message)


async def store_upload(
    blocks: AsyncIterator[bytes],
    announced: int | None,
    store: DatasetStore,
    settings: Settings,
    parameters: UploadParameters,
    decoders: asyncio.Semaphore,
) -> tuple[DatasetManifest, bool]:
    """Store the body as a dataset; return its manifest and whether it is new.

    `announced` is the length of the body that the client announced; None if it announced none. `decoders` limits how
    many parquet files are decoded at the same time, because decoding needs memory. `services.api.http_connection`
    limits how long a client may pause. Raises DataError with the place in the body, TooLargeError, ConflictError,
    StorageError, and the exception that `blocks` raises when the client disconnects. After any error, no unfinished
    files remain.
    """
    limit, reserve = settings.dataset_max_mb * MIB, settings.disk_reserve_mb * MIB
    if announced is not None:
        # If the body is compressed, the text is longer than the body. The dataset therefore needs at least as much
        # space as the body.
        await run_in_threadpool(_require_room, store, announced, limit, reserve)
    intake = await run_in_threadpool(
        DatasetIntake,
        store,
        parameters.name,
        parameters.format,
        text_field=parameters.text_field,
        limit_bytes=limit,
        reserve_bytes=reserve,
    )
    try:
        async for block in _gathered(blocks):
            await run_in_threadpool(intake.write, block)
        async with decoders if parameters.format == "parquet" else nullcontext():
            return await run_in_threadpool(intake.publish)
    except DataError as error:
        raise DataError(error.message, errors=[{"location": "body", "message": error.message}]) from None
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(intake.close)


async def _gathered(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of `blocks` in larger blocks of about 1 MiB.

    The caller then switches to a thread once per block, not once per packet.
    """
    gathered = bytearray()
    async for block in blocks:
        gathered += block
        if len(gathered) >= BLOCK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _require_room(store: DatasetStore, announced: int, limit: int, reserve: int) -> None:
    if announced > limit:
        raise TooLargeError(
            f"the dataset is larger than {limit // 2**20:,} MiB; split it, or raise TIDAL_DATASET_MAX_MB"
        )
    try:
        with storage_errors(store.root):
            store.root.mkdir(parents=True, exist_ok=True)
            require_space(store.root, announced + reserve)
    except StorageError as error:
        raise StorageError(
            f"the disk has too little space for the dataset ({reserve // MIB:,} MiB are kept free): {error.message}"
        ) from error
