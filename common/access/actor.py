"""The actor of a change: the token that a client has sent, and the request with which it was sent."""

from __future__ import annotations

from dataclasses import dataclass

ADMINISTRATOR = "administrator"
"""Name of the holder of TIDAL_AUTH_TOKEN. No named token may have this name."""


@dataclass(frozen=True)
class Actor:
    """The token that causes a change."""

    name: str
    """Name of the token; ADMINISTRATOR for TIDAL_AUTH_TOKEN."""
    token_id: str | None = None
    """Id of a named token; None for the administrator."""
    address: str | None = None
    """Address of the client; None if it is unknown."""
    request_id: str | None = None
    """The id under which the log of the api describes the request."""

    def event_details(self) -> dict[str, str]:
        """Return the entries that name the token in the details of a job's event."""
        return {"token": self.name} | ({"token_id": self.token_id} if self.token_id is not None else {})
