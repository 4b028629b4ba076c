"""`TIDAL_ALLOWED_ORIGINS` accepts origins as browsers write them, and rejects everything else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from common.config import Settings
from common.config.origins import parse_origins


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        ("https://a.example", ["https://a.example"]),
        (" https://A.example , http://localhost:3000,", ["https://a.example", "http://localhost:3000"]),
        ("HTTPS://a.example:443,http://a.example:80", ["https://a.example", "http://a.example"]),
        ("http://a.example:443", ["http://a.example:443"]),
        ("http://127.0.0.1:5173,http://[::1]:5173", ["http://127.0.0.1:5173", "http://[::1]:5173"]),
        ("https://a.example,https://a.example", ["https://a.example"]),
    ],
)
def test_origins_are_read(text: str, origins: list[str]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "https://a.example/",
        "https://a.example/page",
        "https://a.example?x",
        "https://a.example#x",
        "https://user@a.example",
        "https://a.example:port",
        "https://a.example:99999",
        "https://",
        "ftp://a.example",
        "https://*.a.example",
        "https://a example",
        "null",
        "*,https://a.example",
        "https://a.example https://b.example",
    ],
)
def test_what_is_no_origin_is_named(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is not an origin|every origin"):
        Settings(_env_file=None, allowed_origins=text)
