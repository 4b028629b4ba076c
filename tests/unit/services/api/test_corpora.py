"""A submitted job may read text only from the data folder, Hugging Face datasets and the built-in stories."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import DataConfig
from common.datasets import DatasetIntake, DatasetStore
from common.errors import InvalidInputError
from services.api.operations.corpora import check_corpus


@pytest.fixture
def datasets(tmp_path: Path) -> DatasetStore:
    """Create a store with the dataset `fairy-tales`."""
    store = DatasetStore(tmp_path)
    with DatasetIntake(store, "fairy-tales", "txt", limit_bytes=1000) as intake:
        intake.write(b"Once upon a time.")
        intake.publish()
    return store


@pytest.mark.parametrize("source", ["/etc/notes.txt", "../secret.txt", "a/../../b.jsonl", "~/mine.txt", "~root/x.txt"])
@pytest.mark.parametrize("field", ["source", "validation_source"])
def test_a_path_outside_the_data_folder_is_rejected_with_its_location(
    field: str, source: str, datasets: DatasetStore
) -> None:
    with pytest.raises(InvalidInputError, match="outside the data folder") as caught:
        check_corpus(DataConfig.model_validate({field: source}), datasets, location="body.data")
    assert caught.value.errors[0]["location"] == f"body.data.{field}"


def test_each_of_several_corpora_is_checked_with_its_location(datasets: DatasetStore) -> None:
    def entries(*sources: dict[str, str]) -> DataConfig:
        return DataConfig.model_validate({"sources": sources})

    check_corpus(entries({"source": "fairy-tales"}, {"source": "mine.txt"}), datasets, location="body.data")
    for wrong, field in (
        ({"source": "fairy-tale"}, "source"),
        ({"source": "../x.txt"}, "source"),
        ({"source": "mine.txt", "validation_source": "fary-tales"}, "validation_source"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            check_corpus(entries({"source": "fairy-tales"}, wrong), datasets, location="body.data")
        assert caught.value.errors[0]["location"] == f"body.data.sources.1.{field}"


@pytest.mark.parametrize(
    "source", ["builtin:stories", "roneneldan/TinyStories", "mine.txt", "demo/a..b.txt", "x/y.parquet"]
)
def test_the_worker_checks_all_other_sources(source: str, datasets: DatasetStore) -> None:
    check_corpus(DataConfig(source=source), datasets, location="body.data")


@pytest.mark.parametrize(
    "data",
    [
        DataConfig(source="fairy-tales"),
        DataConfig(source="fairy-tales", validation_source="fairy-tales"),
        DataConfig(source="mine.txt", validation_source="fairy-tales"),
        DataConfig(source="owner/name", validation_source="a-split"),
    ],
)
def test_existing_datasets_and_splits_of_the_hub_are_accepted(data: DataConfig, datasets: DatasetStore) -> None:
    check_corpus(data, datasets, location="body.data")


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        (DataConfig(source="fairy-tale"), "source", "did you mean 'fairy-tales'"),
        (DataConfig(source="zzz"), "source", "upload it first, or name builtin:stories"),
        (DataConfig(source="fairy-tales", validation_source="fary-tales"), "validation_source", "'fairy-tales'"),
        (DataConfig(source="builtin:stories", validation_source="fary-tales"), "validation_source", "'fairy-tales'"),
    ],
)
def test_an_unknown_dataset_is_rejected_with_the_nearest_name(
    data: DataConfig, field: str, message: str, datasets: DatasetStore
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        check_corpus(data, datasets, location="body.data")
    assert caught.value.errors[0]["location"] == f"body.data.{field}"
