"""Only `common.redis.client` creates Redis clients, so that all timeouts are defined in one module."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.paths import ROOT

FACTORY = ROOT / "common" / "redis" / "client.py"
MAKERS = {"Redis", "StrictRedis", "ConnectionPool", "BlockingConnectionPool", "from_url", "from_pool"}


def clients_in(source: str) -> list[int]:
    """Return the numbers of the lines that create a Redis client or a connection pool."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in MAKERS:
                found.append(node.lineno)
    return sorted(found)


def test_only_the_factory_creates_clients() -> None:
    modules = [path for folder in ("common", "services") for path in (ROOT / folder).rglob("*.py") if path != FACTORY]
    found = {f"{path.relative_to(ROOT)}:{line}" for path in modules for line in clients_in(read(path))}
    assert not found, f"use common.redis.client.connect or connect_async in {sorted(found)}"


def test_every_way_to_create_a_client_is_found() -> None:
    assert clients_in(read(FACTORY))
    for call in (
        "redis.Redis(host='x')",
        "Redis.from_url(url)",
        "ra.ConnectionPool.from_url(url)",
        "Redis.from_pool(p)",
    ):
        assert clients_in(call) == [1]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
