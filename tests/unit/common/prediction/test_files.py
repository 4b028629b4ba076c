"""The files from which a prediction reads: the calibration, token caches, datasets and the limit of the container."""

from __future__ import annotations

import json
from pathlib import Path

from common.config import DataConfig
from common.prediction.calibration import calibration_path, parse_calibration, read_calibration, write_calibration
from common.prediction.corpus_size import find_corpus_size, find_training_bytes
from common.prediction.machine import memory_limit, this_machine
from common.prediction.plan import CorpusSize
from tests.unit.common.prediction.calibrations import CPU_MACHINE, GPU_MACHINE, calibration


def size(config: DataConfig, folder: Path) -> CorpusSize | None:
    return find_corpus_size(config, folder, bytes_per_token=4.0, builtin_bytes=4000)


def test_a_calibration_is_read_for_the_same_kind_of_machine_only(tmp_path: Path) -> None:
    write_calibration(tmp_path, calibration())
    assert read_calibration(tmp_path, CPU_MACHINE) == calibration()
    assert read_calibration(tmp_path, GPU_MACHINE) is None
    assert CPU_MACHINE.key != GPU_MACHINE.key


def test_a_calibration_of_other_code_or_a_damaged_one_counts_as_missing(tmp_path: Path) -> None:
    path = write_calibration(tmp_path, calibration())
    old = json.loads(path.read_text()) | {"code": 0}
    calibration_path(tmp_path, CPU_MACHINE).write_text(json.dumps(old))
    assert read_calibration(tmp_path, CPU_MACHINE) is None
    assert parse_calibration("{") is None


def test_a_token_cache_gives_the_exact_size(tmp_path: Path) -> None:
    config = DataConfig(source="builtin:stories", max_documents=10)
    folder = tmp_path / "cache" / "any"
    folder.mkdir(parents=True)
    splits = {"train": {"count": 90}, "validation": {"count": 10}}
    [corpus] = config.corpora()
    (folder / "header.json").write_text(json.dumps({"data": corpus.model_dump(mode="json"), "splits": splits}))
    assert size(config, tmp_path) == CorpusSize(90, 10)
    assert size(DataConfig(source="builtin:stories", max_documents=11), tmp_path) is None


def test_the_size_of_a_text_gives_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x" * 8000)
    expected = CorpusSize(1800, 200, text_bytes=8000, estimated=True)
    assert size(DataConfig(source="mine.txt"), tmp_path) == expected
    both = DataConfig(source="mine.txt", validation_source="builtin:stories")
    assert size(both, tmp_path) == CorpusSize(2000, 1000, text_bytes=12_000, estimated=True)
    mixed = DataConfig.model_validate({"sources": [{"source": "mine.txt"}, {"source": "builtin:stories"}]})
    found = size(mixed, tmp_path)
    assert found is not None and (found.train_tokens, found.validation_tokens, found.text_bytes) == (2700, 300, 12_000)
    assert [part.train_tokens for part in found.parts] == [1800, 900]
    for unknown in ("missing.txt", "other.parquet", "owner/name", "no-such-dataset"):
        assert size(DataConfig(source=unknown), tmp_path) is None


def test_tokens_of_a_small_vocabulary_are_shorter(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x" * 8000)

    def tokens(tokenizer: str) -> int:
        found = size(DataConfig(source="mine.txt", tokenizer=tokenizer), tmp_path)
        assert found is not None
        return found.train_tokens + found.validation_tokens

    assert tokens("gpt2") == tokens("train:4096") == 2000  # 256 · 2⁴ entries give the ratio 1
    assert tokens("train:512") == 4000  # 256 · 2¹ entries give the ratio √(1/4)
    assert tokens("train:257") == 8000  # bytes


def test_the_limit_of_a_container_is_the_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1000000\n")
    assert memory_limit(limit) == 1_000_000
    limit.write_text("max\n")
    assert memory_limit(limit) == memory_limit(tmp_path / "missing")


def test_this_machine_has_a_description() -> None:
    machine = this_machine()
    assert machine.cores >= 1 and machine.processor and machine.torch
    assert machine.description


def test_the_training_bytes_are_those_of_the_token_cache(tmp_path: Path) -> None:
    config = DataConfig(source="builtin:stories", max_documents=10, tokenizer="train:512")
    folder = tmp_path / "cache" / "any"
    folder.mkdir(parents=True)
    [corpus] = config.corpora()
    for train, expected in (({"count": 90, "text_bytes": 207}, 207), ({"count": 90}, 180)):
        splits = {"train": train, "validation": {"count": 10}}
        (folder / "header.json").write_text(json.dumps({"data": corpus.model_dump(mode="json"), "splits": splits}))
        assert find_training_bytes(config, tmp_path) == expected
