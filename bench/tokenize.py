"""Compare Tidal's tokeniser with tiktoken and with transformers' fast tokeniser, on one thread and on two.

The text has 10 MB (2 MB with --quick): the built-in stories, or the text file that the environment variable DATA names.
The vocabulary is GPT-2's, or one that is trained on this text if the environment variable TOKENIZER is `train:N`.
Each number of threads is measured in a process of its own, in which the three tokenisers take turns. Tidal's starts
each round without any known words; loading a tokeniser is not measured. The ids of all documents are compared.

With --big, 2 GB of text (200 MB with --quick) are tokenised and written to a token cache instead, and the table
compares the largest memory of the process during the second half of the work with that during the first half.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil

from bench.report import Row, main
from common.config.data import DataConfig
from common.config.tokenizers import GPT2, trained_size
from common.data import END_OF_TEXT, Vocabulary, corpus, gpt2_vocabulary
from common.data.batch_encoder import BatchEncoder
from common.data.stories import STORY_COUNT, story
from common.data.vocabulary_training import train_vocabulary
from common.words import plural

THREADS = (1, 2)
AGAINST_TRANSFORMERS = 10.0
AGAINST_TIKTOKEN = 2.0
PEER_BATCH = 1000
"""Number of documents that transformers gets at a time."""
FLAT = 1.1
"""The largest allowed ratio of the memory in the second half of a large corpus to the memory in the first half."""


def run(quick: bool) -> list[Row]:
    """Measure every number of threads. When `quick`, use less text and fewer rounds."""
    rows: list[Row] = []
    for threads in THREADS:
        found = in_child("measure", quick, threads)
        megabytes, rates = found["megabytes"], found["rates"]
        own = os.environ.get("TOKENIZER", GPT2)
        name = f"tokenising {megabytes:.3g} MB{'' if own == GPT2 else f' with {own}'}, {plural(threads, 'thread')}"
        for peer, bound in (("transformers", AGAINST_TRANSFORMERS), ("tiktoken", AGAINST_TIKTOKEN)):
            rows.append(Row(name, "MB/s", rates["ours"], rates[peer], peer, bound, "at least"))
        rows.append(
            Row(f"{name}: equal ids", "documents", found["equal"], found["documents"], "all documents", 1.0, "at least")
        )
    return rows


def run_big(quick: bool) -> list[Row]:
    """Tokenise a large corpus and compare the memory in both halves of the work. `quick` takes a tenth of the text."""
    found = in_child("big", quick, os.cpu_count() or 1)
    print(
        f"{found['megabytes']:.0f} MB in {found['seconds']:.0f} s ({found['megabytes'] / found['seconds']:.1f} MB/s, "
        f"with reading, hashing and writing), slope in the second half {found['slope']:.1f} MB of memory per GB",
        file=sys.stderr,
    )
    halves = found["first"], found["second"]
    return [Row("memory while tokenising, largest", "MB", halves[1], halves[0], "first half", FLAT, "at most")]


def in_child(what: str, quick: bool, threads: int) -> dict[str, Any]:
    """Run `what` in a new process, in which libraries use `threads` threads, and return the object that it prints."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-m", "bench.tokenize", what, str(int(quick)), str(threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(quick: bool, threads: int) -> dict[str, Any]:
    """Return the medians of the rates of the three tokenisers in MB/s, and the number of documents with equal ids."""
    texts = list(documents(2_000_000 if quick else 10_000_000))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    vocabulary = chosen_vocabulary(texts)
    transformers, tiktoken = transformers_tokenizer(vocabulary), vocabulary.encoding

    def of_transformers() -> None:
        for start in range(0, len(texts), PEER_BATCH):
            transformers(texts[start : start + PEER_BATCH], return_attention_mask=False)

    seconds: dict[str, list[float]] = {"ours": [], "transformers": [], "tiktoken": []}
    for number in range(3 if quick else 5):
        encoder = BatchEncoder(vocabulary, parallel=threads > 1, small_characters=0)
        encoder.encode([f"loads the library {number}"])
        seconds["ours"].append(timed(partial(ours, encoder, texts)))
        seconds["tiktoken"].append(timed(lambda: tiktoken.encode_ordinary_batch(texts, num_threads=threads)))
        if number < 3:  # three rounds are enough, because each takes long
            seconds["transformers"].append(timed(of_transformers))
    expected = tiktoken.encode_ordinary_batch(texts, num_threads=threads)
    found = ours(BatchEncoder(vocabulary, parallel=threads > 1, small_characters=0), texts)
    return {
        "megabytes": megabytes,
        "rates": {name: megabytes / statistics.median(taken) for name, taken in seconds.items()},
        "equal": sum(ids.tolist() == right for ids, right in zip(found, expected, strict=True)),
        "documents": len(texts),
    }


def ours(encoder: BatchEncoder, texts: list[str]) -> list[Any]:
    """Encode the texts in batches of the same size as those of a corpus."""
    stream, found = iter(texts), []
    while batch := corpus._batch(stream):
        found += encoder.encode(batch)
    return found


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def documents(size: int) -> Iterator[str]:
    """Yield documents with `size` bytes together: those of the file DATA, repeated if necessary, or the stories."""
    if name := os.environ.get("DATA"):
        source = [text.strip() for text in Path(name).read_text(encoding="utf-8").split(END_OF_TEXT)]
    else:
        source = [story(index) for index in range(min(STORY_COUNT, size // 500))]
    done = 0
    for text in cycle(source):
        if done >= size:
            return
        done += len(text.encode())
        yield text


def chosen_vocabulary(texts: list[str]) -> Vocabulary:
    """Return the vocabulary that the environment variable TOKENIZER names; `train:N` is trained on `texts`."""
    size = trained_size(os.environ.get("TOKENIZER", GPT2))
    return gpt2_vocabulary() if size is None else train_vocabulary(texts, size)


def transformers_tokenizer(vocabulary: Vocabulary) -> Any:
    """Return transformers' fast tokeniser with the same vocabulary as ours."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(vocabulary.to_json()))
    tokenizer.model_max_length = 1 << 60  # otherwise it warns about long documents
    if vocabulary.is_gpt2:
        assert tokenizer("Hello world")["input_ids"] == [15496, 995]
    return tokenizer


class BigSource:
    """A corpus of `size` bytes. Every document has two words that no other has, so new words occur until its end."""

    description = "2 GB of stories"

    def __init__(self, size: int) -> None:
        self.size = size

    def count(self) -> None:
        return None

    def stamp(self) -> dict[str, Any]:
        return {}

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        return "stories"

    def documents(self) -> Iterator[str]:
        for number, text in enumerate(documents(self.size)):
            yield f"{text} {number * 2654435761 % 2**32:x} {number:o}é"


def big(quick: bool, _threads: int) -> dict[str, Any]:
    """Build a token cache. Return the largest memory of this process in MB in each half of the work, and its slope in
    the second half in MB per GB of text."""
    size = 200_000_000 if quick else 2_000_000_000
    source, process = BigSource(size), psutil.Process()
    memory: list[tuple[float, float]] = []  # seconds and MB
    begin = time.perf_counter()

    def sample(_activity: str, _done: int, _total: int | None) -> None:
        if not memory or time.perf_counter() - begin - memory[-1][0] > 0.1:
            memory.append((time.perf_counter() - begin, process.memory_info().rss / 1e6))

    with tempfile.TemporaryDirectory() as folder:
        corpus._build(Path(folder), DataConfig().corpora()[0], gpt2_vocabulary(), source, None, sample)
        seconds = time.perf_counter() - begin
    middle = len(memory) // 2
    second = memory[middle:]
    times, sizes = zip(*second, strict=True)
    return {
        "megabytes": size / 1e6,
        "seconds": seconds,
        "first": max(value for _, value in memory[:middle]),
        "second": max(sizes),
        "slope": statistics.linear_regression(times, sizes).slope * seconds / (size / 1e9),
    }


if __name__ == "__main__":
    if sys.argv[1:2] in (["measure"], ["big"]):
        child = measure if sys.argv[1] == "measure" else big
        print(json.dumps(child(sys.argv[2] == "1", int(sys.argv[3]))))
    elif "--big" in sys.argv:
        sys.argv.remove("--big")
        main(run_big, __doc__)
    else:
        main(run, __doc__)
