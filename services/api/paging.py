"""Pages of lists, newest first, and their cursors: opaque strings that contain the sort position of the last row.

Rows that are added between two requests do not cause other rows to be repeated or left out. The cursors of logs are
positions in files (`operations.logs`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, TypeVarTuple

from fastapi import Query
from sqlalchemy import Row, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from common.errors import InvalidInputError

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of entries in the reply.")]
Cursor = Annotated[
    str | None, Query(max_length=300, description="`nextCursor` of the previous page; omit it for the first page.")
]

INVALID_CURSOR = "it is not a cursor of this list; use `nextCursor` of the previous page unchanged"
Entity = TypeVar("Entity")
Columns = TypeVarTuple("Columns")


def newest_page(
    session: Session,
    query: Select[Entity, *Columns],
    created_at: InstrumentedAttribute[datetime],
    row_id: InstrumentedAttribute[str],
    *,
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Row[Entity, *Columns]], str | None]:
    """Return at most `limit` rows of `query` after `cursor`, newest first, and the cursor of the next page, or None.

    `created_at` and `row_id` are columns of the first entity that `query` selects; rows are sorted by them. Raises
    InvalidInputError for a cursor of another list.
    """
    if cursor is not None:
        query = query.where(tuple_(created_at, row_id) < decode_cursor(cursor))
    rows = session.execute(query.order_by(created_at.desc(), row_id.desc()).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    last: Any = rows[limit - 1][0]
    return rows[:limit], encode_cursor(last.created_at, last.id)


def decode_number(cursor: str | None) -> int:
    """Parse the cursor of a list that is ordered by a numeric id; 0 without a cursor. Raises InvalidInputError."""
    if cursor is not None and not (cursor.isdecimal() and len(cursor) < 19):
        raise InvalidInputError.at("query.cursor", INVALID_CURSOR)
    return int(cursor or 0)


def encode_cursor(created_at: datetime, row_id: str) -> str:
    """Return the cursor that continues after the row with this time and id."""
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), row_id]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Return time and id of the last row of the previous page. Raises InvalidInputError for an invalid cursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        moment, row_id = json.loads(text)
        position = datetime.fromisoformat(moment), str(row_id)
        if position[0].tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, TypeError, binascii.Error):
        raise InvalidInputError.at("query.cursor", INVALID_CURSOR) from None
    return position
