"""A table that is read with the index has the same points as the archive's lines, whatever the index contains."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from common.metrics import MetricsWriter, metric_names, read_table
from common.metrics import index as index_module
from common.metrics.index import MetricIndex
from common.metrics.index_block import read_block
from tests.metrics_oracle import read_metrics

NAMES = ("loss", "rate", "validation")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the size limits of the index, so that even few points are written to it, in many blocks."""
    monkeypatch.setattr(index_module, "EXTEND_BYTES", 500)
    monkeypatch.setattr(index_module, "BLOCK_BYTES", 2000)


def index_of(folder: Path) -> Path:
    return folder / "metrics" / "metrics.index"


def write_run(folder: Path, seed: int, attempts: int) -> None:
    """Write attempts that repeat steps.

    Some attempts have a rewind, gaps, values that are not finite, or two lines per step.
    """
    rng = random.Random(seed)
    step = 0
    for attempt in range(1, attempts + 1):
        with MetricsWriter(folder, None, "e1", "j1", attempt, segment_bytes=1500, flush_seconds=60) as writer:
            step = max(0, step - rng.randrange(20))
            if attempt > 1 and rng.random() < 0.7:
                writer.rewind(step)
            for _ in range(rng.randrange(5, 60)):
                step += 1
                values = {"loss": rng.choice([rng.gauss(0, 1), rng.gauss(0, 1), math.nan])}
                if rng.random() < 0.5:
                    values["rate"] = rng.random()
                writer.add("metrics", step, values)
                if rng.random() < 0.2:
                    writer.add("metrics", step, {"validation": rng.random()})
                if rng.random() < 0.1:
                    writer.flush()


def assert_same(folder: Path, keys: tuple[str, ...] | None = None) -> None:
    """Assert that the table contains exactly the points of the archive's lines."""
    points = read_metrics(folder, "metrics", keys=keys)
    table = read_table(folder, "metrics", keys)
    assert table.points() == len(points)
    for name in keys or NAMES:
        expected = [(p.step, v) for p in points if (v := p.values.get(name)) is not None]
        steps, values = table.series(name)
        assert list(zip(steps.tolist(), values.tolist(), strict=True)) == expected
        assert table.non_finite(name).tolist() == [p.step for p in points if p.values.get(name, 0.0) is None]
    assert table.newest() == (points[-1] if points else None)
    for count in (1, 7, 10_000):
        assert table.last(count).points() == min(count, len(points))
    for first, last in ((None, 20), (13, None), (9, 31), (20, 20), (10_000, None)):
        part = table.between(first, last)
        within = [p for p in points if (first or 0) <= p.step <= (10_000 if last is None else last)]
        assert (part.points(), part.newest()) == (len(within), within[-1] if within else None)
        for name in keys or NAMES:
            steps, values = part.series(name)
            expected = [(p.step, v) for p in within if (v := p.values.get(name)) is not None]
            assert list(zip(steps.tolist(), values.tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(12))
def test_the_table_equals_the_lines(tmp_path: Path, seed: int) -> None:
    write_run(tmp_path, seed, attempts=1 + seed % 5)
    for keys in (None, ("loss",), ("validation", "rate"), ("nothing",)):
        assert_same(tmp_path, keys)
    assert metric_names(tmp_path, "metrics") == sorted(
        {name for point in read_metrics(tmp_path, "metrics") for name in point.values} | {"loss"}
    )


def test_it_grows_with_the_archive_and_the_writer_keeps_it_up_to_date(tmp_path: Path) -> None:
    sizes = []
    with MetricsWriter(tmp_path, None, "e1", "j1", 1, segment_bytes=1000, flush_seconds=0.01) as writer:
        for step in range(400):
            writer.add("metrics", step, {"loss": 1 / (step + 1)})
            if step % 50 == 49:
                writer.flush()
                assert_same(tmp_path)
                sizes.append(index_of(tmp_path).stat().st_size)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    covered = {
        name: end
        for block in MetricIndex(tmp_path, "metrics")._indexed_blocks(())
        for name, end in block.covers.items()
    }
    waiting = sum(path.stat().st_size for path in (tmp_path / "metrics").glob("*.jsonl")) - sum(covered.values())
    assert waiting < index_module.EXTEND_BYTES


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "rubbish behind", "rubbish"])
def test_a_damaged_index_is_rebuilt(tmp_path: Path, damage: str) -> None:
    write_run(tmp_path, 3, attempts=3)
    assert_same(tmp_path)
    path = index_of(tmp_path)
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(
        {
            "cut": good[: middle + 3],
            "flipped": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
            "emptied": b"",
            "rubbish behind": good + b"TMI1" + bytes(100),
            "rubbish": b"x" * 1000,
        }[damage]
    )
    assert_same(tmp_path)
    assert sum(len(block.steps) for block in MetricIndex(tmp_path, "metrics")._indexed_blocks(())) > 0
    assert_same(tmp_path)


def test_an_index_of_a_truncated_archive_is_not_used(tmp_path: Path) -> None:
    write_run(tmp_path, 4, attempts=1)
    assert_same(tmp_path)
    first = tmp_path / "metrics" / "metrics-1-1.jsonl"
    first.write_bytes(first.read_bytes().splitlines(keepends=True)[0])
    assert_same(tmp_path)


def test_an_incomplete_line_counts_once_it_is_complete(tmp_path: Path) -> None:
    write_run(tmp_path, 5, attempts=1)
    last = max((tmp_path / "metrics").glob("*.jsonl"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    line = json.dumps({"step": 9000, "time": "2026-01-01T00:00:00.000Z", "attempt": 1, "values": {"loss": 3.5}}) + "\n"
    with last.open("a") as file:
        file.write(line[:20])
        file.flush()
        assert read_table(tmp_path, "metrics").series("loss")[0][-1] < 9000
        file.write(line[20:])
    assert read_table(tmp_path, "metrics").series("loss")[1][-1] == 3.5
    assert_same(tmp_path)


def test_the_archive_is_read_even_if_the_index_cannot_be_written(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    index.mkdir(parents=True)  # a folder with the index's name, which makes writing the index fail
    write_run(tmp_path, 6, attempts=2)
    assert_same(tmp_path)
    assert index.is_dir()


def test_lines_that_are_no_json_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, 7, attempts=1)
    first = tmp_path / "metrics" / "metrics-1-1.jsonl"
    index_of(tmp_path).unlink(missing_ok=True)
    first.write_bytes(b"{broken\n" + first.read_bytes())
    assert_same(tmp_path)


def test_one_index_is_extended_again_and_again(tmp_path: Path) -> None:
    index = MetricIndex(tmp_path, "metrics")
    with MetricsWriter(tmp_path, None, "e1", "j1", 1) as writer:
        for part in range(1, 5):
            for step in range(500):
                writer.add("metrics", part * 500 + step, {"a": 1.0 / (step + 1), "b": float(step)})
            writer.flush()
            index.extend()
            with index_of(tmp_path).open("rb") as file:
                rows = sum(len(block.steps) for block in iter(lambda file=file: read_block(file, ("a",)), None))
            assert rows == part * 500
