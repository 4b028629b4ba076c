"""Table `tokens`: the named tokens. A token's row is kept after its end, because events of jobs refer to it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ColumnElement, Index, UniqueConstraint, and_, func, or_, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base
from tidal_client.vocabulary import TokenScope

_ALL_SCOPES = ", ".join(repr(scope.value) for scope in TokenScope)


class AccessToken(Base):
    """One named token. Two valid tokens never have the same name."""

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint(f"cardinality(scopes) > 0 AND scopes <@ ARRAY[{_ALL_SCOPES}]::text[]", name="scopes"),
        UniqueConstraint("hash"),
        Index("uq_tokens_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
        Index("ix_tokens_listing", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """The identifier: `tok_` followed by 16 random characters. It is not secret."""
    name: Mapped[str]
    hash: Mapped[str]
    """Hexadecimal SHA-256 of the token (`common.access.tokens`). The token itself is not stored."""
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    """Name of the token that created this one."""
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Time of the last request with this token, to the minute."""
    revoked_at: Mapped[datetime | None]

    @classmethod
    def is_valid(cls) -> ColumnElement[bool]:
        """Return the SQL condition that a token is neither revoked nor expired, by the clock of the database."""
        expired = cls.expires_at <= func.clock_timestamp()
        return and_(cls.revoked_at.is_(None), or_(cls.expires_at.is_(None), ~expired))
