"""Cursors of lists: opaque text that holds the sort position of the last row, so pages stay right while rows arrive."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated

from fastapi import Query

from common.errors import InvalidInputError

Limit = Annotated[int, Query(ge=1, le=200, description="Most entries in the reply.")]
Cursor = Annotated[
    str | None, Query(max_length=300, description="`nextCursor` of the page before; without it the newest come first.")
]


def encode_cursor(created_at: datetime, row_id: str) -> str:
    """The position after the row with this time and id."""
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), row_id]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Time and id of the last row of the page before. InvalidInputError for anything we did not make."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        moment, row_id = json.loads(text)
        position = datetime.fromisoformat(moment), str(row_id)
        if position[0].tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, TypeError, binascii.Error):
        message = "no cursor of this list; use `nextCursor` of the page before as it is"
        raise InvalidInputError.at("query.cursor", message) from None
    return position
