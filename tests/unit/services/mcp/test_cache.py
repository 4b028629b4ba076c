"""The cache of the MCP server returns what was stored for exactly this key, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.mcp.cache import CachedReply, DiskCache

REPLY = CachedReply("application/json", b'{"a": 1}\n{"b": 2}')


def test_a_reply_is_found_again_also_by_another_process(tmp_path: Path) -> None:
    DiskCache(tmp_path / "new").put("key", REPLY)
    cache = DiskCache(tmp_path / "new")
    assert (cache.get("key"), cache.get("other"), cache.problem) == (REPLY, None, None)
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_the_whole_key_is_checked_and_damage_counts_as_missing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put("key", REPLY)
    cache.put("other", CachedReply("text/plain", b"x"))
    [mine] = [path for path in tmp_path.glob("*.reply") if b'"key"' in path.read_bytes().split(b"}")[0].split(b",")[0]
              and REPLY.body in path.read_bytes()]  # fmt: skip
    [foreign] = [path for path in tmp_path.glob("*.reply") if path != mine]
    content = mine.read_bytes()
    mine.write_bytes(foreign.read_bytes())  # as if two keys had the same hash
    assert cache.get("key") is None
    for damaged in (b"", content[:20], content[:-1], b"[]\n", b"\xff\n"):
        mine.write_bytes(damaged)
        assert cache.get("key") is None
    cache.put("key", REPLY)
    assert cache.get("key") == REPLY


def test_a_reply_that_is_older_than_a_day_counts_as_missing(tmp_path: Path) -> None:
    now = [1_000_000.0]
    cache = DiskCache(tmp_path, kept_seconds=60, now=lambda: now[0])
    cache.put("key", REPLY)
    [path] = tmp_path.glob("*.reply")
    os.utime(path, (now[0], now[0]))
    now[0] += 59
    assert cache.get("key") == REPLY
    now[0] += 2
    assert cache.get("key") is None


def test_the_oldest_replies_are_deleted_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, largest_bytes=4000)
    for number in range(12):
        cache.put(f"key {number}", CachedReply("text/plain", bytes(500)))
        path = max(tmp_path.glob("*.reply"), key=lambda each: each.stat().st_ctime_ns)
        os.utime(path, (number, number))
        assert sum(each.stat().st_size for each in tmp_path.glob("*.reply")) <= 4000
    fresh = DiskCache(tmp_path, largest_bytes=4000, now=lambda: 12.0)
    assert fresh.get("key 11") is not None and fresh.get("key 0") is None
    assert not list(tmp_path.glob(".new-*"))


@pytest.mark.parametrize("obstacle", ["file", "full"])
def test_a_cache_that_cannot_be_written_has_a_problem_and_finds_nothing(
    tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    if obstacle == "file":
        folder.write_text("in the way")
        cache = DiskCache(folder)
    else:
        cache = DiskCache(folder)
        assert cache.problem is None

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("services.mcp.cache.tempfile.mkstemp", full)
    cache.put("key", REPLY)
    assert cache.get("key") is None
    assert cache.problem is not None and "cannot be written" in cache.problem and "--cache-dir" in cache.problem
    monkeypatch.undo()
    if obstacle == "full":
        cache.put("key", REPLY)
        assert cache.problem is None and cache.get("key") == REPLY
