"""Functions of the api without I/O: tokens, cursors, log positions, headers, the OpenAPI document and its page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from common.access import address_group
from common.config import Settings
from common.errors import ConfigError, InvalidInputError
from services.api.app import create_app
from services.api.auth import administrator_token, is_administrator, is_loopback
from services.api.docs import render_page
from services.api.operations import logs
from services.api.operations.logs import complete_log, read_logs
from services.api.paging import decode_cursor, encode_cursor
from services.api.rate_limit import RateLimitDecision
from services.api.streaming.entries import encode_sse
from tidal_client.vocabulary import utc_text


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(settings(), "administrator-token").openapi()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_token_and_makes_a_long_one(host: str) -> None:
    token, made = administrator_token(settings(host=host))
    assert is_loopback(host) and made and len(token) >= 24
    assert administrator_token(settings(host=host))[0] != token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "tidal.example", ""])
def test_any_other_address_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="TIDAL_AUTH_TOKEN"):
        administrator_token(settings(host=host))
    given = settings(host=host, auth_token=SecretStr("long enough"))
    assert administrator_token(given) == ("long enough", False)


def test_only_the_complete_token_is_valid() -> None:
    assert is_administrator("administrator-token", "administrator-token")
    for wrong in ("", "administrator-toke", "administrator-token ", "ADMINISTRATOR-TOKEN", "ü"):
        assert not is_administrator(wrong, "administrator-token")


def test_a_cursor_keeps_time_and_id() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert decode_cursor(encode_cursor(moment, "job_ä/1")) == (moment, "job_ä/1")


@pytest.mark.parametrize("cursor", ["", "x", "====", "bm90IGpzb24", "WzEsMl0", "WyIyMDI2LTAxLTAxIiwgIngiXQ", "é"])
def test_an_invalid_cursor_is_rejected(cursor: str) -> None:
    with pytest.raises(InvalidInputError, match="nextCursor"):
        decode_cursor(cursor)


def test_times_are_sent_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert utc_text(moment) == "2025-12-31T23:00:00Z"


def test_log_pages_join_to_the_whole_log(tmp_path: Path) -> None:
    expected = []
    for attempt in (1, 2, 10):
        lines = [f"{attempt}:{n} ü" for n in range(7)]
        (tmp_path / f"{attempt}.log").write_text("\n".join(lines) + ("\n" if attempt != 10 else ""))
        expected += [(attempt, n + 1, line) for n, line in enumerate(lines)]
    (tmp_path / "notes.log").write_text("not an attempt\n")
    for size in (1, 3, 100):
        found, cursor, complete = [], None, False
        while not complete:
            page = read_logs(tmp_path, cursor, size, ended=True)
            found += [(line.attempt, line.line, line.text) for line in page.lines]
            cursor, complete = page.next_cursor, page.complete
        assert found == expected


def test_a_search_finds_its_lines_with_their_numbers_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SCAN_BYTES", 100)
    lines = [f"step {n} " + ("ÜBER all" if n % 17 == 3 else "quiet") for n in range(200)]
    (tmp_path / "1.log").write_text("\n".join(lines) + "\n")
    (tmp_path / "2.log").write_text("über all of it\nunfinished über")
    found: list[tuple[int, int, str]] = []
    cursor, complete, pages = None, False, 0
    while not complete:
        page = read_logs(tmp_path, cursor, 2, ended=False, search="Über")
        found += [(line.attempt, line.line, line.text) for line in page.lines]
        cursor, complete, pages = page.next_cursor, page.complete, pages + 1
    expected = [(1, n + 1, line) for n, line in enumerate(lines) if "ÜBER" in line]
    assert found == [*expected, (2, 1, "über all of it")]
    assert pages > len(expected) / 2


def test_broken_bytes_and_endless_lines_do_not_break_a_page(tmp_path: Path) -> None:
    (tmp_path / "1.log").write_bytes(b"\xff\xfe\r\n" + b"x" * 100_000 + b"\n")
    first, second = read_logs(tmp_path, None, 10, ended=True).lines
    assert first.text == "��"
    assert second.text == "x" * 16 * 1024 + " … (cut; the whole line has 100000 bytes)"
    assert b"".join(complete_log(tmp_path)) == b"\xff\xfe\r\n" + b"x" * 100_000 + b"\n"


def test_a_complete_log_contains_the_bytes_of_all_attempts_in_order(tmp_path: Path) -> None:
    assert b"".join(complete_log(tmp_path / "none")) == b""
    for attempt in range(1, 11):
        (tmp_path / f"{attempt}.log").write_text(f"line of {attempt}, unfinished")
    (tmp_path / "notes.log").write_text("no log of an attempt")
    expected = [text for n in range(1, 11) for text in (f"==== attempt {n} ====", f"line of {n}, unfinished")]
    assert b"".join(complete_log(tmp_path)).decode().split("\n") == expected


def test_the_headers_describe_the_bucket() -> None:
    decision = RateLimitDecision(allowed=False, limit=5, remaining=0, wait_seconds=5.2, window_seconds=30.0)
    headers = Headers(decision.headers())
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"], headers["Retry-After"]) == ("5", "0", "6")
    assert headers["RateLimit"] == '"generate";r=0;t=6'
    assert headers["RateLimit-Policy"] == '"generate";q=5;w=30'
    free = RateLimitDecision(allowed=True, limit=5, remaining=3, wait_seconds=0.0, window_seconds=30.0)
    assert "Retry-After" not in free.headers()


def test_a_caller_is_an_ipv4_address_or_an_ipv6_network() -> None:
    assert address_group("203.0.113.7") == "203.0.113.7"
    assert address_group("::ffff:203.0.113.7") == "203.0.113.7"
    assert address_group("2001:db8:1:2:3::4") == address_group("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert len(address_group("x" * 1000)) == 64


def test_an_event_with_line_breaks_stays_one_event() -> None:
    assert encode_sse("1-0", "log-lines", "a\nb\r\nc") == b"id: 1-0\nevent: log-lines\ndata: a\ndata: b\ndata: c\n\n"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, item in document["paths"].items() for method, found in item.items()]


def test_every_operation_has_a_description_and_documented_errors(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) >= 28
    for path, method, operation in found:
        assert operation["summary"] and operation["description"] and operation["tags"], (method, path)
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                openai = path.startswith("/v1/")
                content = {"application/json": "ErrorReply"} if openai else {"application/problem+json": "Problem"}
                named = {
                    kind: media["schema"]["$ref"].rpartition("/")[2] for kind, media in response["content"].items()
                }
                assert named == content, (method, path, status)
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


def test_the_document_names_the_statuses_that_all_operations_of_a_kind_share(document: dict[str, Any]) -> None:
    health = ("/healthz", "/readyz")
    for path, method, operation in operations(document):
        named, openai = operation["responses"].keys(), path.startswith("/v1/")
        assert "400" in named, (method, path)
        assert ("401" in named) == ("security" in operation and path != "/api/session"), (method, path)
        assert ("403" in named) == ("401" in named), (method, path)
        assert ("421" in named) == (path not in health), (method, path)
        assert ("422" in named) == (not openai and bool({"parameters", "requestBody"} & operation.keys())), path
        assert ("413" in named) == ("requestBody" in operation), (method, path)
        assert ("408" in named) == ("requestBody" in operation), (method, path)
        assert ("503" in named) == (path != "/healthz"), (method, path)
        assert ("429" in named) == ("security" in operation), (method, path)


def test_the_document_requires_a_token_for_closed_reads() -> None:
    closed = create_app(settings(require_auth_for_reads=True), "administrator-token").openapi()
    needed = {path: operation["security"] for path, _, operation in operations(closed) if "security" in operation}
    assert needed["/api/jobs/{job_id}"] == [{"token": ["read"]}]
    assert needed["/api/generate"] == needed["/v1/completions"] == [{"token": ["generate"]}]
    assert needed["/api/session"] == [{}, {"token": []}]


def test_operations_that_change_something_need_a_token(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        like_reads = ("/api/generate", "/api/analyze-trajectories", "/v1/completions", "/v1/chat/completions")
        if method != "get" and path not in like_reads:
            scope = "admin" if path.startswith("/api/tokens") else "submit"
            assert operation["security"] == [{"token": [scope]}], (method, path)
            assert "401" in operation["responses"], (method, path)


class Outline(HTMLParser):
    """Collects the elements of a page that would load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_reference_page_names_every_operation_and_loads_nothing(document: dict[str, Any]) -> None:
    page = render_page(document, "/tidal")
    outline = Outline()
    outline.feed(page)
    assert "script" not in outline.tags and "img" not in outline.tags and "link" not in outline.tags
    assert all(link.startswith(("#", "/tidal/")) for link in outline.links)
    for path, _, operation in operations(document):
        assert f"/tidal{path}" in page
        assert operation["summary"] in page


def test_html_in_the_document_is_escaped(document: dict[str, Any]) -> None:
    hostile = {**document, "info": {**document["info"], "title": "<script>alert(1)</script>"}}
    assert "<script>" not in render_page(hostile)
