"""A dataset exists completely or not at all, even if a process is killed. Deleting it deletes its token cache."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import DataConfig
from common.data import open_corpus
from common.datasets import DatasetIntake, DatasetManifest, DatasetStore
from common.errors import ConflictError, DataError, NotFoundError, StorageError, TooLargeError
from tests.paths import ROOT
from tidal_client.vocabulary import DatasetFormat

TEXT = "<|endoftext|>".join(f"Story {n} of a sea that rose and fell." for n in range(40)).encode()


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "data")


def upload(
    store: DatasetStore,
    data: bytes = TEXT,
    name: str = "sea",
    kind: DatasetFormat = "txt",
    step: int = 100,
    limit: int = 10**6,
    reserve: int = 0,
) -> tuple[DatasetManifest, bool]:
    with DatasetIntake(store, name, kind, limit_bytes=limit, reserve_bytes=reserve) as intake:
        for start in range(0, len(data), step):
            intake.write(data[start : start + step])
        return intake.publish()


def folders(store: DatasetStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir() if path.is_dir())


def test_an_upload_lies_there_as_it_came_with_its_hash(store: DatasetStore) -> None:
    manifest, created = upload(store)
    assert created and (manifest.sha256, manifest.size_bytes) == (hashlib.sha256(TEXT).hexdigest(), len(TEXT))
    assert manifest.documents == 40
    assert store.text(manifest).read_bytes() == TEXT
    assert store.manifests() == [manifest] == [store.find("sea")] and folders(store) == ["sea"]


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(TEXT), gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]) + b"\0" * 9],
    ids=["one", "two and padding"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_gzip_is_unpacked_whatever_the_name(store: DatasetStore, packed: bytes, step: int) -> None:
    manifest, _ = upload(store, packed, step=step)
    assert store.text(manifest).read_bytes() == TEXT and manifest.sha256 == hashlib.sha256(TEXT).hexdigest()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b" \n<|endoftext|>\t", "no text"),
        (b"x\xff", "byte 2"),
        (gzip.compress(TEXT)[:-9], "cut off"),
        (gzip.compress(TEXT)[:20] + b"garbage" * 9, "damaged"),
    ],
    ids=["nothing", "nothing packed", "no document", "no UTF-8", "cut off", "damaged"],
)
def test_what_is_no_corpus_leaves_nothing(store: DatasetStore, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        upload(store, data)
    assert folders(store) == [] and store.names() == []


@pytest.mark.parametrize("data", [TEXT, gzip.compress(b"a" * 10_000_000)], ids=["plain", "bomb"])
def test_more_than_allowed_is_refused_by_what_is_unpacked(store: DatasetStore, data: bytes) -> None:
    with pytest.raises(TooLargeError, match="TIDAL_DATASET_MAX_MB"):
        upload(store, data, limit=1000)
    assert folders(store) == []


def test_the_same_again_changes_nothing_and_other_text_is_refused(store: DatasetStore) -> None:
    first, _ = upload(store)
    again, created = upload(store, gzip.compress(TEXT))
    assert not created and again == first
    with pytest.raises(ConflictError, match="another dataset 'sea'"):
        upload(store, TEXT + b".")
    with pytest.raises(ConflictError, match="but in the format txt"):
        lines = b'{"text": "a"}'
        upload(store, lines, name="both")
        upload(store, lines, name="both", kind="jsonl")
    assert store.find("sea") == first and folders(store) == ["both", "sea"]


def test_a_full_disk_leaves_nothing(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.datasets.intake.SPACE_CHECK_BYTES", 500)
    with pytest.raises(StorageError, match="free some space"):
        upload(store, reserve=2**62)
    assert folders(store) == []


KILLED = """
import sys, os, signal
from common.datasets import DatasetIntake, DatasetStore
intake = DatasetIntake(DatasetStore(sys.argv[1]), "sea", "txt", limit_bytes=10**6)
intake.write(b"half of it")
print("ready", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_the_dead_are_swept_and_uploads_under_way_are_not(store: DatasetStore) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.data_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    with DatasetIntake(store, "mine", "txt", limit_bytes=10**6) as mine:
        mine.write(TEXT)
        assert store.remove_abandoned() == 0 and len(folders(store)) == 2
        other.stdin.close()
        assert other.wait(30) == -9
        other.stdout.close()
        assert store.remove_abandoned() == 1 and len(folders(store)) == 1
        mine.publish()
    assert store.names() == ["mine"] and store.remove_abandoned() == 0


def test_a_dataset_is_found_by_its_name_and_tokenised_once(store: DatasetStore) -> None:
    manifest, _ = upload(store)
    corpus = open_corpus(DataConfig(source="sea"), data_dir=store.data_dir)
    assert len(corpus.documents("train")) + len(corpus.documents("validation")) == 40
    by_path = open_corpus(DataConfig(source=f"datasets/sea/{manifest.file}"), data_dir=store.data_dir)
    assert by_path.digest == corpus.digest
    # A restored copy has another modification time but the same content.
    os.utime(store.text(manifest), (1, 1))
    assert open_corpus(DataConfig(source="sea"), data_dir=store.data_dir).digest == corpus.digest


def test_its_own_text_field_counts(store: DatasetStore) -> None:
    data = b"".join(json.dumps({"story": f"tale {n}"}).encode() + b"\n" for n in range(9))
    with DatasetIntake(store, "tales", "jsonl", text_field="story", limit_bytes=10**6) as intake:
        intake.write(data)
        intake.publish()
    corpus = open_corpus(DataConfig(source="tales"), data_dir=store.data_dir)
    assert len(corpus.documents("train")) + len(corpus.documents("validation")) == 9


def test_a_dataset_may_validate_another(store: DatasetStore) -> None:
    upload(store)
    upload(store, b"Held out.", name="held-out")
    corpus = open_corpus(DataConfig(source="sea", validation_source="held-out"), data_dir=store.data_dir)
    assert (len(corpus.documents("train")), len(corpus.documents("validation"))) == (40, 1)


def test_the_error_of_a_missing_name_suggests_a_similar_one(store: DatasetStore) -> None:
    upload(store, name="sea-stories")
    with pytest.raises(DataError, match="did you mean 'sea-stories'"):
        open_corpus(DataConfig(source="sea-storys"), data_dir=store.data_dir)


def test_a_text_of_another_length_is_reported(store: DatasetStore) -> None:
    manifest, _ = upload(store)
    with store.text(manifest).open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="is damaged"):
        open_corpus(DataConfig(source="sea"), data_dir=store.data_dir)


def test_deleting_takes_its_tokens_and_no_others(store: DatasetStore) -> None:
    upload(store)
    upload(store, name="land")
    for data in (
        DataConfig(source="sea"),
        DataConfig(source="land", validation_source="sea"),
        DataConfig(source="land"),
    ):
        open_corpus(data, data_dir=store.data_dir)
    store.delete("sea")
    caches = [json.loads(path.read_text())["data"] for path in (store.data_dir / "cache").glob("*/header.json")]
    assert [(data["source"], data["validation_source"]) for data in caches] == [("land", None)]
    assert store.names() == folders(store) == ["land"]
    with pytest.raises(NotFoundError):
        store.delete("sea")


@pytest.mark.parametrize("name", ["..", "../land", ".incoming-1", "/etc", ""])
def test_no_name_leads_out(store: DatasetStore, name: str) -> None:
    upload(store)
    for act in (store.find, store.delete):
        with pytest.raises(ValueError, match="cannot be a dataset's name"):
            act(name)
    assert not store.has(name)


def test_deleting_a_dataset_deletes_the_vocabularies_trained_on_it(store: DatasetStore) -> None:
    for folder, names in (("vocabulary-1", ["sea", "land"]), ("vocabulary-2", ["land"])):
        header = {"data": [{"source": name, "validation_source": None} for name in names]}
        (store.data_dir / "cache" / folder).mkdir(parents=True)
        (store.data_dir / "cache" / folder / "header.json").write_text(json.dumps(header))
    (store.root / "sea").mkdir(parents=True)
    store.delete("sea")
    assert [path.name for path in (store.data_dir / "cache").glob("vocabulary-*")] == ["vocabulary-2"]
