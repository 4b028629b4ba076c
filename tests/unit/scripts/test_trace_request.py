"""The trace of a request: which calls a process counts, and which of them belong to the request."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts import trace_request
from scripts.trace_request import HOOK, Window, on_the_way, worked
from tests.paths import ROOT

PROGRAM = """
import subprocess, sys
from common.words import plural
plural(3, "job")
code = "from common.words import with_article; with_article('job')"
subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": sys.argv[1]})
"""


def test_a_process_and_its_children_count_calls_and_record_stacks(tmp_path: Path) -> None:
    shutil.copy(HOOK, tmp_path)
    (tmp_path / "root").write_text(str(ROOT))
    (tmp_path / "relays").write_text("common/words.py:with_article")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT)], env=environment, check=True, timeout=60)
    traces: list[dict[str, Any]] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    calls = {name: buckets for trace in traces for name, buckets in trace["calls"].items()}
    # Calls at import time are not counted.
    assert set(calls) == {"common/words.py:plural", "common/words.py:with_article"}
    [[count, first]] = calls["common/words.py:plural"].values()
    assert count == 1 and started <= first <= time.monotonic()
    [stacks] = [trace["stacks"] for trace in traces if trace["stacks"]]
    assert set(stacks["common/words.py:with_article"]) == {"common/words.py:with_article"}


def test_calls_that_an_idle_stack_makes_too_do_not_belong_to_the_request() -> None:
    calls = {
        "a.py:only_now": {"0": [1, 10.1]},
        "a.py:always": {str(second): [1, float(second)] for second in range(12)},
        "b.py:always": {str(second): [1, float(second)] for second in range(12)},
        "c.py:more": {"0": [1, 5.0], "1": [40, 10.5]},
        "d.py:later": {"0": [1, 11.5]},
    }
    found = worked([{"calls": calls}], Window(10, 11), Window(0, 9.5))
    assert {file: (work.calls, work.functions) for file, work in found.items()} == {
        "a.py": (1, {"only_now"}),
        "c.py": (40, {"more"}),
    }


def test_the_way_of_a_request_is_read_from_the_stacks_of_the_functions_that_forward_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_request, "WAYS", {"way": ("b.py:out", "c.py:out")})
    monkeypatch.setattr(trace_request, "PROCESSES", {"c.py:out": "trainer"})
    of_api = {"b.py:out": {"b.py:out": {"0": [2, 10.5]}, "a.py:route": {"0": [1, 10.5]}, "m.py:main": {"0": [1, 10.5]}}}
    of_trainer = {"c.py:out": {"c.py:out": {"0": [1, 10.7]}, "m.py:main": {"0": [1, 10.7]}}}
    of_worker = {"c.py:out": {"w.py:log": {"0": [1, 10.6]}}}
    traces = [
        {"command": "api", "calls": {"m.py:main": {"0": [1, 1.0]}}, "stacks": of_api},
        {"command": "trainer", "calls": {"m.py:main": {"0": [1, 10.6]}}, "stacks": of_trainer},
        {"command": "worker", "calls": {}, "stacks": of_worker},
    ]
    found = on_the_way(traces, "way", Window(10, 11))
    assert {file: work.calls for file, work in found.items()} == {"b.py": 2, "a.py": 1, "c.py": 1, "m.py": 1}
    with pytest.raises(ValueError, match="was not called"):
        on_the_way(traces, "way", Window(12, 13))


def test_every_relay_exists() -> None:
    relays = {relay for way in trace_request.WAYS.values() for relay in way} | {trace_request.FIRST_STEP}
    missing = {relay for relay in relays if not defined(*relay.split(":"))}
    assert not missing, f"rename these in WAYS: {missing}"


def defined(file: str, name: str) -> bool:
    """Return whether `file` defines a function with the qualified name `name`."""
    path = ROOT / file
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))] if path.exists() else []
    for part in name.replace(".<locals>", "").split("."):
        nodes = [child for node in nodes for child in ast.walk(node) if getattr(child, "name", None) == part]
    return bool(nodes)
