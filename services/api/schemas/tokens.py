"""Requests about named tokens. The replies are in `tidal_client.wire.access_token`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, field_validator

from common.access import ADMINISTRATOR
from services.api.schemas.base import Request
from tidal_client.vocabulary import TokenScope

TokenName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
]


class TokenRequest(Request):
    """A token to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "notebook of Ada", "scopes": ["submit"], "expiresAt": "2040-01-31T00:00:00Z"}]
        }
    )

    name: TokenName
    """Name that events of jobs show. Two valid tokens cannot have the same name."""
    scopes: list[TokenScope] = Field(min_length=1, max_length=4)
    """`read`, `generate` (generation, analyses, `/v1`), `submit` (jobs, datasets, experiments, reports; includes read)
    and `admin` (everything)."""
    expires_at: AwareDatetime | None = None
    """Time from which the token is refused, with a time zone; null for a token that does not expire."""

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, name: str) -> str:
        if name.casefold() == ADMINISTRATOR:
            raise ValueError(f"{ADMINISTRATOR!r} is the name of TIDAL_AUTH_TOKEN; choose another name")
        return name
