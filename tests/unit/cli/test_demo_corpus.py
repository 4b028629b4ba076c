"""The demonstration takes a local file as it is now, also after it has changed."""

from __future__ import annotations

from pathlib import Path

from services.cli.demo_corpus import local_corpus


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
