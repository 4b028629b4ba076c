"""Counts the calls of this project's functions in a Python process, for `scripts/trace_request.py`.

When Python starts, it imports a module with this name if the module's folder is on PYTHONPATH. Therefore every process
that inherits this PYTHONPATH counts its calls. The script copies this file into an empty folder, together with the
files `root` (the path of the repository) and `relays` (names of functions). Each process rewrites `<pid>.json` in this
folder four times a second and when it ends. Calls during an import are not counted. When a function of `relays` is
called, the functions on the call stack are counted in addition. The script decides later which calls belong to a
request.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = (FOLDER / "root").read_text() if (FOLDER / "root").exists() else ""
OURS = tuple(f"{ROOT}/{package}/" for package in ("common", "services", "tidal_client"))
SECONDS = 0.25
"""Seconds between two writes of the file."""
BUCKETS = 20
"""Number of time buckets per second; calls are counted per bucket."""
RELAYS = frozenset((FOLDER / "relays").read_text().split()) if ROOT else frozenset[str]()
"""Names of the functions whose call stacks are recorded, in the form that `name_of` returns."""
FUNCTION = 1
"""Flag in `co_flags` of the code of a function. The code of modules and classes lacks it."""

Calls = dict[int, list[float]]
"""Maps a time bucket to [number of calls, time of the first call]; the time is in seconds of the monotonic clock."""
calls: dict[str, Calls] = {}
stacks: dict[str, dict[str, Calls]] = {}
"""Maps each relay to the functions that were on the call stack when it was called, with their counts."""
_ended = threading.Event()
_names: dict[CodeType, str | None] = {}
_importing: dict[int, int] = {}


def name_of(code: CodeType) -> str | None:
    """Return `<file>:<function>`, with the path relative to the repository; None for code outside this project."""
    if code not in _names:
        ours = code.co_filename.startswith(OURS)
        _names[code] = f"{code.co_filename[len(ROOT) + 1 :]}:{code.co_qualname}" if ours else None
    return _names[code]


def profile(frame: FrameType, event: str, argument: Any) -> None:
    """Count a call. The interpreter calls this function at each call and return."""
    if event == "call" or event == "return":
        code = frame.f_code
        name = name_of(code)
        if name is None:
            return
        thread = threading.get_ident()
        if not code.co_flags & FUNCTION:
            if code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
                _importing[thread] = _importing.get(thread, 0) + (1 if event == "call" else -1)
        elif event == "call" and not _importing.get(thread):
            _count(calls, name)
            if name in RELAYS:
                above: FrameType | None = frame
                while above is not None:
                    if (caller := name_of(above.f_code)) is not None:
                        _count(stacks.setdefault(name, {}), caller)
                    above = above.f_back


def _count(into: dict[str, Calls], name: str) -> None:
    now = time.monotonic()
    bucket = into.setdefault(name, {}).setdefault(int(now * BUCKETS), [0, now])
    bucket[0] += 1


def _write() -> None:
    """Write the counts of this process, replacing its file."""
    command = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    try:
        text = json.dumps({"command": command, "calls": calls, "stacks": stacks})
    except RuntimeError:  # another thread added a key during the iteration; the next write follows soon
        return
    target = FOLDER / f"{os.getpid()}.json"
    part = target.with_name(f"{target.name}.{threading.get_ident()}")
    part.write_text(text)
    part.replace(target)


def _write_often() -> None:
    while not _ended.wait(SECONDS):
        _write()


class Started(subprocess.Popen[Any]):
    """Popen that adds the environment variables for counting, even if the caller passes an environment."""

    def __init__(self, *arguments: Any, env: Any = None, **named: Any) -> None:
        if env is not None:
            env = {**env, "PYTHONPATH": os.pathsep.join([str(FOLDER), env.get("PYTHONPATH", "")])}
        named["env"] = env
        super().__init__(*arguments, **named)


def _end() -> None:
    _ended.set()
    _write()


def _begin() -> None:
    threading.Thread(target=_write_often, name="trace", daemon=True).start()
    threading.setprofile(profile)
    sys.setprofile(profile)


if ROOT:
    atexit.register(_end)
    os.register_at_fork(after_in_child=_begin)
    vars(subprocess)["Popen"] = Started
    _begin()
