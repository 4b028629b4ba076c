"""The local stack of a folder as `.tidal/state.json` describes it: addresses, token, processes.

Written by the supervisor of `tidal up`, read by everybody who wants to talk to it. A file whose supervisor is gone
counts as no stack. Leaves out: starting and stopping.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATE_FILE = "state.json"


@dataclass
class ProcessState:
    """One process of the tree. `pid` is None while it waits to be started again."""

    pid: int | None = None
    port: int | None = None
    status: str = "waiting"
    restarts: int = 0


@dataclass
class LocalInstance:
    """A running stack. The file holds secrets: mode 0600."""

    pid: int
    """Process id of the supervisor."""
    started: float
    """Its start, seconds since the epoch as the kernel tells it: a recycled process id does not fool the reader."""
    status: str
    """starting, ready or stopping."""
    folder: str
    api_url: str
    token: str
    flower_url: str
    flower_password: str
    """Of the user `tidal`."""
    database_url: str
    redis_url: str
    experiments_dir: str
    data_dir: str
    logs_dir: str
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of the state file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        import psutil  # only here, because who talks to another machine needs no processes

        try:
            process = psutil.Process(self.pid)
            same = abs(float(process.create_time()) - self.started) < 1.0
            return same and str(process.status()) != str(psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def instance_folder() -> Path:
    """TIDAL_HOME, or `.tidal` in the working directory; absolute."""
    return Path(os.environ.get("TIDAL_HOME") or ".tidal").absolute()


def read_state_file(folder: Path) -> LocalInstance | None:
    """What the last supervisor of `folder` wrote, running or not; None without a readable file."""
    try:
        values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        processes = {name: ProcessState(**state) for name, state in values.pop("processes").items()}
        return LocalInstance(**values, processes=processes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_instance(folder: Path | None = None) -> LocalInstance | None:
    """The stack that runs in `folder` (default: `instance_folder()`), or None."""
    instance = read_state_file(folder or instance_folder())
    return instance if instance is not None and instance.alive else None
