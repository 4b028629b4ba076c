"""Corpus files must be below the data folder. Commands that a user runs in a terminal may also read other files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from common.config import DataConfig
from common.data import open_corpus, require_inside, resolve_local_files, source
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
    (folder / "train.csv").write_text("text\nNo job may train on this.\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="a local folder has the name of this Hugging Face dataset"):
        open_corpus(DataConfig(source="someone/stories"), data_dir=tmp_path / "data")


def test_files_of_a_job_lie_inside_the_data_folder(tmp_path: Path) -> None:
    inside, outside = text_file(tmp_path, name="in.txt"), "/etc/hostname.txt"
    require_inside(DataConfig(source=str(inside), validation_source="in.txt"), tmp_path)
    require_inside(DataConfig(source="builtin:stories"), tmp_path)
    for data in (DataConfig(source=outside), DataConfig(source="in.txt", validation_source="~/x.txt")):
        with pytest.raises(DataError, match="outside the data folder"):
            require_inside(data, tmp_path)


def test_a_command_resolves_files_from_its_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data := tmp_path / "data").mkdir()
    for folder, name in ((tmp_path, "a.txt"), (tmp_path, "b.txt"), (data, "a.txt")):
        text_file(folder, name=name)
    monkeypatch.chdir(tmp_path)
    found = resolve_local_files(DataConfig(source="b.txt", validation_source="a.txt"), data)
    assert (found.source, found.validation_source) == (str(tmp_path / "b.txt"), "a.txt")
    assert resolve_local_files(DataConfig(source="someone/stories"), data).source == "someone/stories"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nobody-here/x.txt", "this path cannot be resolved"),
        (f"owner/{'x' * 100}", "this is not the name of a corpus"),
        ("loop.txt", "cannot be resolved"),
        ("closed/x.txt", "no such corpus"),
        ("paper.pdf", "extract its text into a .txt file"),
        ("./table.csv", "convert it to .jsonl or .parquet"),
        ("my notes.md", "give it a name that ends in .txt"),
        ("stories.csv.gz", "convert it to .jsonl or .parquet"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_it(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "closed").write_text("a file, not a folder")
    for config in (DataConfig(source=name), DataConfig(source="builtin:stories", validation_source=name)):
        with pytest.raises(DataError, match=message) as caught:
            open_corpus(config, data_dir=tmp_path)
        assert len(caught.value.message) < 5000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300 + ".txt", "a part of more than 255 bytes"),
        ("é" * 130 + ".txt", "a part of more than 255 bytes"),
        (f"owner/{'x' * 300}", "a part of more than 255 bytes"),
        ("a\0b.txt", "contains a NUL character"),
        ("a/" * 2000 + "x.txt", "longer than 1024 bytes"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_in_the_configuration(name: str, message: str) -> None:
    for field in ("source", "validation_source"):
        with pytest.raises(ValidationError, match=message):
            DataConfig.model_validate({"source": "builtin:stories", field: name})


def test_spaces_and_capitals_in_a_path_are_fine(tmp_path: Path) -> None:
    (tmp_path / "My Texts").mkdir()
    text_file(tmp_path / "My Texts", "The tide (2).TXT")
    assert len(open_corpus(DataConfig(source="My Texts/The tide (2).TXT"), data_dir=tmp_path).train)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the corpus file and not the token cache."""
    path = text_file(tmp_path, "mine.txt")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(source, "sha256_of", refuse)
    with pytest.raises(DataError, match=r"mine\.txt: cannot be read \(Permission denied\)"):
        open_corpus(DataConfig(source="mine.txt"), data_dir=tmp_path)
