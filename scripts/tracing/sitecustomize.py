"""Counts the calls of this project's functions in a Python process, for `scripts/trace_request.py`.

Python imports a module of this name at its start when its folder is on PYTHONPATH, so every process of a stack that
was started with it counts, whoever starts it. The script puts a copy of this file into an empty folder, beside it the
files `root` with the path of the repository and `relays`; each process rewrites its `<pid>.json` there four times a
second. Calls during an import are left out. At a call of a function of `relays` all functions on the call stack are
noted. Leaves out: which of the calls belong to a request.
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
"""Between two writes of the file."""
BUCKETS = 20
"""Per second; calls are counted in these."""
RELAYS = frozenset((FOLDER / "relays").read_text().split()) if ROOT else frozenset[str]()
"""Functions, as `name_of` names them, at whose calls the stack is noted."""
FUNCTION = 1
"""Flag of a code object that is a function's; modules and classes lack it."""

Calls = dict[int, list[float]]
"""Per bucket: number of calls, time of the first."""
calls: dict[str, Calls] = {}
stacks: dict[str, dict[str, Calls]] = {}
"""By relay, the same for the functions that were on the stack at its calls."""
_names: dict[CodeType, str | None] = {}
_importing: dict[int, int] = {}


def name_of(code: CodeType) -> str | None:
    """`<file>:<function>` of our own code, relative to the repository; None for all other code."""
    if code not in _names:
        ours = code.co_filename.startswith(OURS)
        _names[code] = f"{code.co_filename[len(ROOT) + 1 :]}:{code.co_qualname}" if ours else None
    return _names[code]


def profile(frame: FrameType, event: str, argument: Any) -> None:
    """Called by the interpreter at each call and return."""
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
    """Replace the file of this process."""
    command = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    try:
        text = json.dumps({"command": command, "calls": calls, "stacks": stacks})
    except RuntimeError:  # a dictionary grew meanwhile; the next time comes soon
        return
    target = FOLDER / f"{os.getpid()}.json"
    part = target.with_name(f"{target.name}.{threading.get_ident()}")
    part.write_text(text)
    part.replace(target)


def _write_often() -> None:
    while True:
        time.sleep(SECONDS)
        _write()


class Started(subprocess.Popen[Any]):
    """A process that counts too, whatever environment it is given."""

    def __init__(self, *arguments: Any, env: Any = None, **named: Any) -> None:
        if env is not None:
            env = {**env, "PYTHONPATH": os.pathsep.join([str(FOLDER), env.get("PYTHONPATH", "")])}
        super().__init__(*arguments, env=env, **named)  # type: ignore[call-overload]


def _begin() -> None:
    threading.Thread(target=_write_often, name="trace", daemon=True).start()
    threading.setprofile(profile)
    sys.setprofile(profile)


if ROOT:
    atexit.register(_write)
    os.register_at_fork(after_in_child=_begin)
    vars(subprocess)["Popen"] = Started
    _begin()
