"""Small inputs that expand to gigabytes are rejected with a clear error, and no process that reads them needs 400 MB.

The inputs are uploaded to an api process, and read in another process with the reader that trainers use. The tests
measure the peak memory that the kernel reports (VmHWM); `--log-cli-level=INFO` shows the peak for each input.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hostile import MIB, packed, parquet_bombs
from tests.integration.acceptance.stack import ROOT, Stack

pytestmark = pytest.mark.timeout(300)
MOST_MEMORY = 400_000_000
log = logging.getLogger(__name__)
DEEP = b"[" * 100_000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
LINES: dict[str, tuple[list[tuple[bytes, int]], str]] = {
    "text.txt": ([(b"a" * MIB, 400)], "the dataset is larger than 300 MiB"),
    "blanks.txt": ([(b" " * MIB, 100)], "there is no text in it"),
    "members.txt": ([(b"a", 1)], ""),
    "line.jsonl": ([(b'{"text": "', 1), (b"a" * MIB, 100)], "line 1 is longer than 16 MiB"),
    "lists.jsonl": ([(b'{"text": "a", "of": [', 1), (b"[],", 5 * MIB)], "line 1 has more than 250,000 values"),
    "strings.jsonl": ([(b'{"text": "a", "of": [', 1), (b'"ab",', 3 * MIB)], "line 1 has more than 250,000 values"),
    "deep.jsonl": ([(b'{"text": ', 1), (b"[", 100_000)], "line 1 is nested too deeply"),
    "wide.jsonl": (
        [(b'{"text": "\\ud83d\\ude00', 1), (b"a " * (MIB // 2), 15), (b'"}\n', 1)], "",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bombs() -> dict[str, tuple[bytes, str]]:
    return parquet_bombs()


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    with Stack(database_url, redis_url, tmp_path) as stack:
        stack.start("api", "api", TIDAL_DATASET_MAX_MB="300")
        stack.wait_for("the api to be ready", lambda: answers(stack))
        stack.http.timeout = 120
        yield stack


def answers(stack: Stack) -> bool:
    try:
        return stack.http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def peak(stack: Stack) -> int:
    lines = Path(f"/proc/{stack.processes['api'].pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def upload(stack: Stack, name: str, data: bytes | Iterator[bytes]) -> httpx.Response:
    return stack.http.post("/api/datasets", params={"name": name}, content=data)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory")
def test_uploads_are_refused_with_an_error_and_in_bounded_memory(
    stack: Stack, bombs: dict[str, tuple[bytes, str]]
) -> None:
    uploads: list[tuple[str, bytes | Iterator[bytes], str]] = [
        (f"{name}.parquet", data, words) for name, (data, words) in bombs.items()
    ]
    uploads += [(name, packed(*parts), words) for name, (parts, words) in LINES.items()]
    for name, data, words in uploads:
        before = peak(stack)
        reply = upload(stack, name, data)
        found = f"{name}: {reply.status_code} {reply.text[:300]}; peak {before // MIB} → {peak(stack) // MIB} MiB"
        log.info(found)
        if words:
            assert reply.status_code in (413, 422) and words in reply.json()["detail"], found
        else:
            assert reply.status_code == 201, found
        assert peak(stack) <= MOST_MEMORY, found
    left = sorted(path.name for path in (stack.folder / "data" / "datasets").iterdir() if path.name[0] == ".")
    assert left == [".lock"]
    assert answers(stack)


def bodies() -> Iterator[tuple[str, str, bytes]]:
    nested: dict[str, Any] = {}
    for _ in range(900):
        nested = {"a": nested}
    inner = json.dumps(nested).encode()
    for path in ("/api/jobs", "/api/generate", "/v1/completions", "/api/reports", "/api/analyze-trajectories"):
        yield "deep", path, DEEP
        yield "deep objects", path, b'{"a":' * 100_000
        yield "objects", path, inner
        yield "lists", path, b"[" + b"[]," * 340_000 + b"1]"
    for depth in (100, 900, 20_000, 100_000):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        yield f"config {depth}", "/api/jobs", b'{"type": "lm-training", "config": ' + deep + b"}"
        yield f"data {depth}", "/api/jobs", b'{"type": "dataset", "data": ' + deep + b"}"
        yield f"section {depth}", "/api/jobs", b'{"type": "lm-training", "config": {"model": ' + deep + b"}}"
        yield f"logit_bias {depth}", "/v1/completions", b'{"model": "a/b", "prompt": "a", "logit_bias": ' + deep + b"}"
        yield f"prompt {depth}", "/v1/completions", b'{"model": "a/b", "prompt": ' + b"[" * depth + b"]" * depth + b"}"
    chart = f"```chart\n{LAUGHS}```\n"
    yield "aliases", "/api/reports", json.dumps({"title": "t", "markdown": chart}).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory")
def test_bodies_are_refused_with_an_error_and_in_bounded_memory(stack: Stack) -> None:
    for what, path, body in bodies():
        reply = stack.http.post(path, content=body, headers={"Content-Type": "application/json"})
        found = f"{what} to {path}: {reply.status_code} {reply.text[:200]}; peak {peak(stack) // MIB} MiB"
        log.info(found)
        assert peak(stack) <= MOST_MEMORY, found
        assert reply.status_code in (400, 422), found
        if what.startswith("deep"):
            assert "nests lists and objects too deeply" in reply.text, found
    assert "Traceback" not in stack.log("api").read_text()


READ = """
import resource, sys
from pathlib import Path
from common.datasets.reading import read_file
from common.errors import DataError
try:
    for _ in read_file(Path(sys.argv[1]), "text", where="it"):
        pass
except DataError as error:
    print(error.message)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(max(int(peak.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory")
def test_a_trainer_that_reads_them_stays_below_the_same_limit(
    bombs: dict[str, tuple[bytes, str]], tmp_path: Path
) -> None:
    files = {f"{name}.parquet": (data, words) for name, (data, words) in bombs.items()}
    for name, (parts, words) in LINES.items():
        # The size limit of uploads does not apply to this reader, so it would accept text.txt and read its 400 MiB in
        # blocks.
        if name != "text.txt":
            files[f"{name}.gz"] = (b"".join(packed(*parts)), words)
    for name, (data, words) in files.items():
        (path := tmp_path / name).write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
        )
        *printed, memory = done.stdout.splitlines()
        log.info("%s: peak %d MiB: %s", name, int(memory) // MIB, printed)
        assert words in "\n".join(printed), done.stdout
        assert int(memory) <= MOST_MEMORY, (name, int(memory) // MIB)
