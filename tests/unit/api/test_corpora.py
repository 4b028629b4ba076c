"""A job over the api reads text from the data folder, the hub or the built-in stories, and from nowhere else."""

from __future__ import annotations

import pytest

from common.config import DataConfig
from common.errors import InvalidInputError
from services.api.operations.corpora import check_corpus


@pytest.mark.parametrize("source", ["/etc/notes.txt", "../secret.txt", "a/../../b.jsonl", "~/mine.txt", "~root/x.txt"])
@pytest.mark.parametrize("field", ["source", "validation_source"])
def test_a_path_outside_the_data_folder_is_refused_with_its_place(field: str, source: str) -> None:
    with pytest.raises(InvalidInputError, match="outside the data folder") as caught:
        check_corpus(DataConfig.model_validate({field: source}), location="body.data")
    assert caught.value.errors[0]["location"] == f"body.data.{field}"


@pytest.mark.parametrize(
    "source", ["builtin:stories", "roneneldan/TinyStories", "mine.txt", "demo/a..b.txt", "x/y.parquet"]
)
def test_everything_else_is_left_to_the_worker(source: str) -> None:
    check_corpus(DataConfig(source=source), location="body.data")
