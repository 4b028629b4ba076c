"""The state file of a local stack, `.tidal/state.json`: addresses, token, processes.

The supervisor of `tidal up` writes the file, and clients read it to connect to the stack. A file whose supervisor has
ended is ignored. `services.local` starts and stops stacks.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATE_FILE = "state.json"


@dataclass
class ProcessState:
    """One process of the stack. `pid` is None while the process waits to be restarted."""

    pid: int | None = None
    port: int | None = None
    status: str = "waiting"
    restarts: int = 0


@dataclass
class LocalInstance:
    """The content of the state file. The file contains secrets, so its mode is 0600."""

    pid: int
    """Process id of the supervisor."""
    started: float
    """Start time of the supervisor process in seconds since 1970. A later process with the
    same process id has a different start time."""
    status: str
    """State of the stack: starting, ready or stopping."""
    folder: str
    api_url: str
    token: str
    flower_url: str
    flower_password: str
    """Password of the user `tidal` in Flower."""
    database_url: str
    redis_url: str
    experiments_dir: str
    data_dir: str
    logs_dir: str
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of the state file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def alive(self) -> bool:
        """Return whether the supervisor that wrote the file still runs."""
        import psutil  # clients of a remote api do not need psutil

        try:
            process = psutil.Process(self.pid)
            same_process = abs(float(process.create_time()) - self.started) < 1.0
            return same_process and str(process.status()) != str(psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def instance_folder() -> Path:
    """Return the folder of the local stack: TIDAL_HOME, or `.tidal` in the working directory, as an absolute path."""
    return Path(os.environ.get("TIDAL_HOME") or ".tidal").absolute()


def read_state_file(folder: Path) -> LocalInstance | None:
    """Return the state in `folder`, even if its supervisor has ended, or None if there is no valid state file."""
    try:
        values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        processes = {name: ProcessState(**state) for name, state in values.pop("processes").items()}
        return LocalInstance(**values, processes=processes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_instance(folder: Path | None = None) -> LocalInstance | None:
    """Return the running stack in `folder` (default: `instance_folder()`), or None if no stack runs there."""
    instance = read_state_file(folder or instance_folder())
    return instance if instance is not None and instance.alive else None
