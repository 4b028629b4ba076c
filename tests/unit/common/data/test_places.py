"""Where the text of a corpus may lie: below the data folder, or where the user of the terminal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import DataConfig
from common.data import open_corpus, require_inside, seen_from_here
from common.errors import DataError


def text_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("Once there was a cat.\n" * 20)
    return path


def test_a_relative_file_is_looked_for_below_the_data_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    data.mkdir()
    secret = text_file(here, name="secret.txt")
    (data / "link.txt").symlink_to(secret)
    monkeypatch.chdir(here)
    for name in ("secret.txt", "./secret.txt"):
        with pytest.raises(DataError, match="no such corpus"):
            open_corpus(DataConfig(source=name), data_dir=data)
    for name in ("../here/secret.txt", "link.txt"):
        with pytest.raises(DataError, match="outside the data folder"):
            open_corpus(DataConfig(source=name), data_dir=data)


def test_a_local_folder_is_never_taken_for_a_data_set_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "someone/stories").mkdir(parents=True)
    (folder / "train.csv").write_text("text\nNobody may train on this.\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="local folder of this name"):
        open_corpus(DataConfig(source="someone/stories"), data_dir=tmp_path / "data")


def test_files_of_a_job_lie_inside_the_data_folder(tmp_path: Path) -> None:
    inside, outside = text_file(tmp_path, name="in.txt"), "/etc/hostname.txt"
    require_inside(DataConfig(source=str(inside), validation_source="in.txt"), tmp_path)
    require_inside(DataConfig(source="builtin:stories"), tmp_path)
    for data in (DataConfig(source=outside), DataConfig(source="in.txt", validation_source="~/x.txt")):
        with pytest.raises(DataError, match="outside the data folder"):
            require_inside(data, tmp_path)


def test_a_command_may_name_a_file_from_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data := tmp_path / "data").mkdir()
    for folder, name in ((tmp_path, "a.txt"), (tmp_path, "b.txt"), (data, "a.txt")):
        text_file(folder, name=name)
    monkeypatch.chdir(tmp_path)
    found = seen_from_here(DataConfig(source="b.txt", validation_source="a.txt"), data)
    assert (found.source, found.validation_source) == (str(tmp_path / "b.txt"), "a.txt")
    assert seen_from_here(DataConfig(source="someone/stories"), data).source == "someone/stories"
