"""The demonstration uses the current content of a local file, even after the file has changed."""

from __future__ import annotations

from pathlib import Path

from common.config import PROJECT_ROOT, DataConfig, load_lm_config
from common.training.hooks import NullHooks
from common.training.loading import load_corpus
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


def test_a_short_text_gets_a_vocabulary_that_fits_every_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a\n<|endoftext|>\n" * 30)
    corpus = local_corpus(file)
    loaded = load_corpus(DataConfig(source=corpus.place(tmp_path), **corpus.settings), tmp_path, NullHooks())
    assert loaded.vocabulary.size == 257
    file.write_text("a" * 200_000)
    assert local_corpus(file).settings == {}


def test_a_fifth_of_the_built_in_stories_is_enough_for_the_vocabulary_of_the_demonstration(tmp_path: Path) -> None:
    config = load_lm_config(PROJECT_ROOT / "configs/demo/lm.yaml").data
    fifth = config.model_copy(update={"max_documents": 4_000})
    assert load_corpus(fifth, tmp_path, NullHooks()).vocabulary.size == 1024
