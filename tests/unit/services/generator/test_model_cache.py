"""Which files stay loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import NotFoundError
from services.generator.model_cache import FileCache


class Loader:
    """Reads text and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, path: Path) -> str:
        self.asked.append(path.name)
        return path.read_text()


def write(path: Path, text: str, changed_at: int) -> Path:
    path.write_text(text)
    os.utime(path, ns=(changed_at, changed_at))
    return path


def test_the_least_recently_used_file_is_dropped(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / name, name, 1) for name in "abc")
    loader = Loader()
    cache = FileCache(loader, len, 2)
    for path in (a, b, a, c, a, b):
        assert cache.get(path) == path.name
    assert loader.asked == ["a", "b", "c", "b"]


def test_what_is_loaded_fits_into_the_memory_but_for_the_last_used(tmp_path: Path) -> None:
    small, middle, large = (write(tmp_path / name, "x" * size, 1) for name, size in (("s", 2), ("m", 3), ("l", 9)))
    loader = Loader()
    cache = FileCache(loader, len, 5)
    for path in (small, middle, small, middle):
        cache.get(path)
    assert loader.asked == ["s", "m"]
    cache.get(large)
    cache.get(large)
    cache.get(small)
    assert loader.asked == ["s", "m", "l", "s"]


def test_what_is_in_use_is_not_dropped_and_leaves_when_it_no_longer_is(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / name, name, 1) for name in "abc")
    loader = Loader()
    used: list[str] = []
    cache = FileCache(loader, len, 2, lambda: used)
    used.append(cache.get(a))
    for path in (b, c, a):
        assert cache.get(path) == path.name
    assert loader.asked == ["a", "b", "c"], "b left, though a was used longer ago"
    used.clear()
    for path in (c, b, a):
        cache.get(path)
    assert loader.asked == ["a", "b", "c", "b", "a"]


def test_a_changed_file_is_loaded_anew_and_a_checkpoint_folder_goes_by_its_manifest(tmp_path: Path) -> None:
    loader = Loader()
    cache = FileCache(loader, len, 6)
    path = write(tmp_path / "a", "old", 1)
    assert cache.get(path) == "old"
    write(path, "new", 2)
    assert cache.get(path) == "new"
    folder = tmp_path / "step-1"
    folder.mkdir()
    write(folder / "manifest.json", "{}", 5)
    read = FileCache(lambda found: (found / "manifest.json").read_text(), len, 2)
    assert read.get(folder) == "{}"
    write(folder / "manifest.json", "[]", 6)
    assert read.get(folder) == "[]"


def test_a_failed_load_is_tried_again(tmp_path: Path) -> None:
    failures = [OSError("first")]

    def load(path: Path) -> str:
        if failures:
            raise failures.pop()
        return path.read_text()

    cache = FileCache(load, len, 1)
    path = write(tmp_path / "a", "text", 1)
    with pytest.raises(OSError, match="first"):
        cache.get(path)
    assert cache.get(path) == "text"


def test_a_file_that_was_removed_is_not_found(tmp_path: Path) -> None:
    loader = Loader()
    cache = FileCache(loader, len, 10)
    path = write(tmp_path / "a", "a", 1)
    cache.get(path)
    path.unlink()
    with pytest.raises(NotFoundError, match="a was removed"):
        cache.get(path)
    with pytest.raises(NotFoundError, match="a was removed"):
        cache.get_if_loaded(path)
