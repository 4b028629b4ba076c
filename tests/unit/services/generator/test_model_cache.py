"""Which files a cache keeps loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import NotFoundError
from services.generator.model_cache import FileCache


class Loader:
    """Loads text files and records their names."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, path: Path) -> str:
        self.loaded.append(path.name)
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
    assert loader.loaded == ["a", "b", "c", "b"]


def test_all_loaded_files_but_the_last_used_fit_into_the_capacity(tmp_path: Path) -> None:
    small, middle, large = (write(tmp_path / name, "x" * size, 1) for name, size in (("s", 2), ("m", 3), ("l", 9)))
    loader = Loader()
    cache = FileCache(loader, len, 5)
    for path in (small, middle, small, middle):
        cache.get(path)
    assert loader.loaded == ["s", "m"]
    cache.get(large)
    cache.get(large)
    cache.get(small)
    assert loader.loaded == ["s", "m", "l", "s"]


def test_a_file_in_use_is_not_dropped_until_it_is_no_longer_in_use(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / name, name, 1) for name in "abc")
    loader = Loader()
    used: list[str] = []
    cache = FileCache(loader, len, 2, lambda: used)
    used.append(cache.get(a))
    for path in (b, c, a):
        assert cache.get(path) == path.name
    assert loader.loaded == ["a", "b", "c"], "b was dropped, although a was used earlier"
    used.clear()
    for path in (c, b, a):
        cache.get(path)
    assert loader.loaded == ["a", "b", "c", "b", "a"]


def test_a_changed_file_is_loaded_again_and_a_folder_if_its_manifest_changes(tmp_path: Path) -> None:
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
