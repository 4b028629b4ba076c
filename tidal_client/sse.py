"""One event of a server-sent stream, and the delays before a stream connects again.

`asynchronous.streams` and `synchronous.streams` read and follow streams.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from httpx_sse import ServerSentEvent

FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0
"""Seconds before a new connection: FIRST_DELAY at first, then doubled after each failure up to LONGEST_DELAY."""
PATIENCE_SECONDS = 60.0
"""A stream from which nothing has arrived for this number of seconds fails with the next broken connection."""


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event. `data` is the parsed JSON, or the text itself if it is not JSON."""

    name: str
    data: Any
    id: str | None = None
    """The last event id that the stream has sent, with this event or an earlier one; None if it has sent none."""
    topic: str | None = None
    """With `follow_topics`, the stream to which the event belongs; otherwise None."""


def stream_event(event: ServerSentEvent) -> StreamEvent:
    """Return an event of httpx-sse with its data parsed."""
    try:
        data = json.loads(event.data)
    except ValueError:
        data = event.data
    return StreamEvent(event.event, data, event.id or None)
