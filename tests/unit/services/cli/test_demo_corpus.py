"""The demonstration uses the current content of a local file, even after the file has changed."""

from __future__ import annotations

from pathlib import Path

from services.cli.demo.corpus import local_corpus


def test_a_changed_file_gets_another_name_and_an_unchanged_one_the_same(tmp_path: Path) -> None:
    file, data_dir = tmp_path / "mine.txt", tmp_path / "data"
    file.write_text("Once upon a time.")
    first = local_corpus(file).place(data_dir)
    assert local_corpus(file).place(data_dir) == first
    assert (data_dir / first).read_text() == "Once upon a time."
    file.write_text("Once upon another time.")
    second = local_corpus(file).place(data_dir)
    assert second != first
    assert (data_dir / second).read_text() == "Once upon another time."


def test_a_name_as_long_as_names_may_be_is_brought_there(tmp_path: Path) -> None:
    file = tmp_path / ("ä" * 125 + ".txt")  # 254 bytes in UTF-8; a file name may have 255
    file.write_text("Once upon a time.")
    name = local_corpus(file).place(tmp_path / "data")
    assert name.endswith("ä.txt") and (tmp_path / "data" / name).read_text() == "Once upon a time."
