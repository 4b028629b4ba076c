"""Taking a dataset in: the body as it comes, in blocks, through `common.datasets.Intake` in a worker thread.

Memory stays constant, and a client that goes away leaves nothing. What is refused early is answered at once; the server
swallows what the client still sends. Leaves out: the job that tokenises it (`datasets.tokenise`).
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

    Raises InvalidInputError for a name that no dataset may have, and for a suffix of a file that is not a corpus, even
    if `kind` is given.
    """
    plain, by_suffix = split_name(name)
    if by_suffix is None and (refusal := file_name_problem(name)) is not None:
        raise InvalidInputError.at("query.name", f"{name[:80]!r}: {refusal}")
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

    `announced` is the length of the body if the client sends it. `decoders` limits how many parquet files are decoded
    at the same time, because each needs memory. Raises DataError (with the place in the body), TooLargeError,
    ConflictError or StorageError, and passes on what `blocks` raises when the client disconnects. How long a client may
    be silent is limited for every body where connections are (`services.api.http_connection`). No unfinished files
    remain, whatever the outcome.
    """
    limit, reserve = settings.dataset_max_mb * MIB, settings.disk_reserve_mb * MIB
    if announced is not None:
        # Packed text is longer than its body, so this is the least that will be needed.
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
    """Yield the same bytes in blocks of about 1 MiB, so that a thread switch is needed per block, not per packet."""
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
            f"the disk has too little room for the dataset ({reserve // MIB:,} MiB are kept free): {error.message}"
        ) from error
