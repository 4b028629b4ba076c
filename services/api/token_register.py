"""Looks up the named tokens of requests in the database, and ends the requests of tokens that are no longer valid.

A token that was found is trusted for TRUST_SECONDS, so a client with many requests costs two queries per second.
Requests that arrive during a query share the next one. All queries run in one thread with one connection of their own;
requests that wait for other connections therefore delay no look-up. If the database does not answer, named tokens are
refused with 503, because they may have been revoked.

While requests or streams with named tokens run, the register checks their tokens every CHECK_SECONDS. It ends the
requests of a token that was revoked or has expired, and, after UNCONFIRMED_SECONDS without an answer of the database,
those of all named tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import anyio
from sqlalchemy import Engine, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from common.access import is_well_formed, token_hash
from common.config import Settings
from common.db import AccessToken, make_engine
from common.errors import TidalError, UnauthorizedError, UnavailableError
from common.jobs.sql import now_minus
from common.logging import get_logger
from services.api.callers import Caller, all_scopes
from services.api.errors import from_database_error

TRUST_SECONDS = 0.5
"""A token is looked up again when its last look-up began longer ago than this. A revocation must take effect within a
second."""
USE_SECONDS = 60.0
"""`last_used_at` is written again when it is older than this."""
CHECK_SECONDS = 0.25
"""Seconds between two checks of the tokens of running requests."""
UNCONFIRMED_SECONDS = 5.0
"""Running requests may continue for this long while the database does not answer, so that its restart ends none."""
MOST_TRUSTED = 4096
"""Largest number of tokens that are remembered; the one whose look-up is oldest is forgotten first."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    caller: Caller
    looked_up_at: float


class RunningRequest:
    """A request that can be ended from another task."""

    def __init__(self) -> None:
        self.cancel_scope = anyio.CancelScope()
        self.token_id: str | None = None
        """The named token of the request, once it is known."""
        self.error: TidalError | None = None
        """Why the request was ended; None while it may run."""

    def end(self, error: TidalError) -> None:
        """Cancel the request. Only the first call has an effect."""
        if self.error is None:
            self.error = error
            self.cancel_scope.cancel()


class TokenRegister:
    """The named tokens, as one api process knows them."""

    def __init__(self, settings: Settings) -> None:
        self._engine: Engine = make_engine(
            settings.database_url,
            application_name="tidal-api-tokens",
            pool_size=1,
            max_overflow=0,
            statement_timeout=3.0,
            lock_timeout=2.0,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="token look-up")
        self._found: OrderedDict[str, _Found] = OrderedDict()
        """{hash of a token: the result of its last successful look-up}, oldest look-up first."""
        self._waiting: list[tuple[str, asyncio.Future[Caller | None]]] = []
        self._reading: asyncio.Task[None] | None = None
        self._answers = True
        self._running: dict[str, set[RunningRequest]] = {}
        """{id of a named token: its running requests}."""
        self._watching: asyncio.Task[None] | None = None

    def hold(self, caller: Caller, request: RunningRequest) -> None:
        """End `request` as soon as the token of `caller` is no longer valid, unless `release` is called before."""
        assert caller.token_id is not None
        request.token_id = caller.token_id
        self._running.setdefault(caller.token_id, set()).add(request)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="token watch")

    def release(self, request: RunningRequest) -> None:
        """Stop watching a request that has ended."""
        if request.token_id is not None:
            others = self._running.get(request.token_id, set())
            others.discard(request)
            if not others:
                self._running.pop(request.token_id, None)

    async def find(self, token: str) -> Caller | None:
        """Return the holder of a named token; None if the token is malformed, unknown, revoked or expired.

        Raises UnavailableError if the database does not answer.
        """
        if not is_well_formed(token):
            return None
        hashed = token_hash(token)
        found = self._found.get(hashed)
        if found is not None and time.monotonic() - found.looked_up_at < TRUST_SECONDS:
            return found.caller
        future: asyncio.Future[Caller | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((hashed, future))
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._look_up_waiting(), name="token look-up")
        return await future

    async def close(self) -> None:
        """Stop the look-ups and close the connection."""
        for task in (self._reading, self._watching):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    async def _look_up_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            began = time.monotonic()  # a token that is revoked during the query may still be found
            try:
                callers = await loop.run_in_executor(self._thread, self._read, {hashed for hashed, _ in batch})
            except Exception as error:
                self._refuse(batch, error)
                continue
            self._note_success()
            for hashed, future in batch:
                caller = callers.get(hashed)
                self._found.pop(hashed, None)
                if caller is not None:
                    self._found[hashed] = _Found(caller, began)
                if not future.done():
                    future.set_result(caller)
            while len(self._found) > MOST_TRUSTED:
                self._found.popitem(last=False)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        confirmed_at = time.monotonic()
        while self._running:
            await asyncio.sleep(CHECK_SECONDS)
            ids, began = set(self._running), time.monotonic()
            if not ids:
                return
            try:
                valid = await loop.run_in_executor(self._thread, self._valid_ids, ids)
            except Exception as error:
                self._note_failure(error)
                if time.monotonic() - confirmed_at >= UNCONFIRMED_SECONDS:
                    for token_id in ids:
                        self._end(token_id, token_not_checked())
                continue
            self._note_success()
            confirmed_at = began
            for token_id in ids - valid:
                self._end(token_id, UnauthorizedError("the token was revoked or has expired", code="token_ended"))

    def _end(self, token_id: str, error: TidalError) -> None:
        for hashed in [hashed for hashed, found in self._found.items() if found.caller.token_id == token_id]:
            del self._found[hashed]
        for request in list(self._running.get(token_id, ())):
            request.end(error)

    def _valid_ids(self, ids: set[str]) -> set[str]:
        """Return the ids of those of these tokens that are valid."""
        with self._engine.connect() as connection:
            return set(
                connection.scalars(select(AccessToken.id).where(AccessToken.id.in_(ids), AccessToken.is_valid()))
            )

    def _refuse(self, batch: list[tuple[str, asyncio.Future[Caller | None]]], error: Exception) -> None:
        known = self._note_failure(error)
        for _, future in batch:
            if not future.done():
                future.set_exception(token_not_checked() if known else error)

    def _note_success(self) -> None:
        if not self._answers:
            log.info("named tokens can be checked again")
        self._answers = True

    def _note_failure(self, error: Exception) -> bool:
        """Log the failure of a query; return whether it means that the database does not answer."""
        known = isinstance(error, SQLAlchemyError) and from_database_error(error) is not None
        if not known:
            log.error("a look-up of tokens failed", exc_info=error)
        elif self._answers:
            log.warning("named tokens are refused, because the database does not answer", error=str(error))
        self._answers = False
        return known

    def _read(self, hashes: set[str]) -> dict[str, Caller]:
        """Return {hash: holder} of the valid ones of these tokens, and record that they are used."""
        outdated = or_(AccessToken.last_used_at.is_(None), AccessToken.last_used_at < now_minus(USE_SECONDS))
        query = select(
            AccessToken.hash, AccessToken.id, AccessToken.name, AccessToken.scopes, AccessToken.expires_at, outdated
        ).where(AccessToken.hash.in_(hashes), AccessToken.is_valid())
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
            used = [row.id for row in rows if row[-1]]
            if used:
                record = update(AccessToken).where(AccessToken.id.in_(used), outdated)
                connection.execute(record.values(last_used_at=func.now()))
        return {
            row.hash: Caller(row.name, row.id, scopes=all_scopes(row.scopes), expires_at=row.expires_at) for row in rows
        }


def token_not_checked() -> UnavailableError:
    """Return the error for a named token while the database does not answer."""
    return UnavailableError(
        "the database cannot be reached, so the token cannot be checked; try again", code="token_not_checked"
    )
