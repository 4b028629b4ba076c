"""Measure the largest anonymous memory that a process needs to build the token cache of generated text, and to read one
epoch of it with shuffled documents.

`python -m bench.corpus` uses 0.5, 1 and 2 GB of text and extrapolates the straight line through the two largest sizes
to 10 GB. The reference is the limit of 1 GiB, which includes Python, torch and the tokeniser. Pages of
memory-mapped files do not count, because the kernel can drop them. A document has about 300 bytes, so 10 GB have 33
million documents. The reference of the speed is a training that reads a million tokens per second.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from bench.report import Row, main

GIB = 2**30
TARGET_GB = 10.0
SENTENCES = 20_000
SENTENCES_PER_DOCUMENT = 5
NEEDED_TOKENS_PER_SECOND = 1e6


def run(quick: bool) -> list[Row]:
    """Measure three sizes, or two small ones when `quick`."""
    sizes = [0.05, 0.1] if quick else [0.5, 1.0, 2.0]
    rows: list[Row] = []
    peaks: dict[str, list[float]] = {"build the token cache": [], "read an epoch": []}
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        for size in sizes:
            directory = Path(folder) / f"{size}"
            directory.mkdir()
            documents = write_text(directory / "text.txt", round(size * 1e9))
            for name, values in peaks.items():
                peak, rate = in_child(name, directory)
                values.append(peak)
                title = f"peak memory to {name}: {size:g} GB of text, {documents:,} documents"
                rows.append(Row(title, "MiB", peak / 2**20, 1024, "limit", 1.0, "at most"))
                if name == "read an epoch" and size == sizes[-1]:
                    title = f"speed of reading an epoch of {size:g} GB in micro-batches of 64 x 257 tokens"
                    reference = "a fast training"
                    rows.append(Row(title, "tokens/s", rate, NEEDED_TOKENS_PER_SECOND, reference, 1.0, "at least"))
            (directory / "text.txt").unlink()
    for name, values in peaks.items():
        slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
        reached = max(values[-1], values[-1] + slope * (TARGET_GB - sizes[-1]))
        title = f"peak memory to {name}, extrapolated to {TARGET_GB:g} GB ({slope / 2**20:.1f} MiB per GB)"
        rows.append(Row(title, "MiB", reached / 2**20, GIB / 2**20, "limit", 1.0, "at most"))
    return rows


def write_text(path: Path, size: int) -> int:
    """Write documents until the file has `size` bytes, and return their number.

    Each document has a new word of random letters, because the tokeniser remembers words that it has seen.
    """
    chooser = random.Random(1)
    words = ["".join(chooser.choices("etaoinshrdlu", k=chooser.randint(2, 9))) for _ in range(50_000)]
    sentences = [" ".join(chooser.choices(words, k=chooser.randint(6, 14))) + "." for _ in range(SENTENCES)]
    written = documents = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            chosen = chooser.choices(sentences, k=SENTENCES_PER_DOCUMENT)
            new_word = f"{chooser.getrandbits(40):x}".translate(_LETTERS)
            written += file.write(f"{' '.join(chosen)} {new_word}\n<|endoftext|>\n")
            documents += 1
    return documents


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def in_child(name: str, directory: Path) -> tuple[float, float]:
    """Run a part of the measurement in a new process; return its peak in bytes and its speed in tokens per second."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    target = _build if name.startswith("build") else _read_epoch
    child = context.Process(target=_observed, args=(target, directory, sending))
    child.start()
    sending.close()
    peak, rate = receiving.recv()
    child.join()
    return float(peak), float(rate)


def _observed(target: Callable[[Path], float], directory: Path, sending: Connection) -> None:
    from common.training.peak_memory import anonymous_bytes

    peak, ended = 0, threading.Event()

    def observe() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, anonymous_bytes(Path("/proc/self/status").read_text()))

    observer = threading.Thread(target=observe)
    observer.start()
    rate = target(directory)
    ended.set()
    observer.join()
    sending.send((peak, rate))


def _build(directory: Path) -> float:
    from common.config import DataConfig
    from common.data import open_corpus

    started = time.perf_counter()
    corpus = open_corpus(DataConfig(source="text.txt"), data_dir=directory)
    return len(corpus.train) / (time.perf_counter() - started)


def _read_epoch(directory: Path) -> float:
    from common.config import DataConfig
    from common.data import CorpusLoader, open_corpus

    corpus = open_corpus(DataConfig(source="text.txt"), data_dir=directory)
    started = time.perf_counter()
    loader = CorpusLoader(corpus, context_length=256, batch_size=64)
    read = 0
    while read < loader.num_chunks:
        read += len(loader.next_batch()[0])
    return read * 257 / (time.perf_counter() - started)


if __name__ == "__main__":
    main(run, __doc__)
