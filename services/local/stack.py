"""Defines the local stack: its folders, secrets, ports, and the command and environment of each process.

All files are in one folder (`.tidal`, or TIDAL_HOME). Secrets are generated at the first start and stored with mode
0600, so that tokens stay valid after a restart.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config import PROJECT_ROOT, Settings
from common.config.child_environment import own_environment
from common.errors import ConfigError, ConflictError, StorageError
from services.local.child import ChildSpec
from services.local.server_files import free_port, port_is_free, write_private

FLOWER_PORT = 5555
NO_DATABASE = "postgresql+psycopg://unused@127.0.0.1/none"
"""Placeholder for TIDAL_DATABASE_URL in processes that never connect to a database."""
SERVER_STOP_SECONDS = 1.5
"""Part of the stop budget, in seconds, that is reserved for stopping PostgreSQL and Valkey."""


@dataclass(frozen=True)
class StackSecrets:
    """The administrator's token, and the password of the user `tidal` for Flower."""

    token: str
    flower_password: str


@dataclass(frozen=True)
class ServerUrls:
    """The URLs of PostgreSQL and Redis. They contain the passwords."""

    database_url: str
    redis_url: str


@dataclass(frozen=True)
class Addresses:
    """Hosts and ports of the api and of Flower."""

    host: str
    port: int
    flower_port: int

    @property
    def api_url(self) -> str:
        """The URL of the api for programs on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def flower_url(self) -> str:
        """The URL of Flower, which listens only on the loopback interface."""
        return f"http://127.0.0.1:{self.flower_port}"


def load_secrets(folder: Path, settings: Settings) -> StackSecrets:
    """Return TIDAL_AUTH_TOKEN and TIDAL_FLOWER_PASSWORD. If one is not set, generate and store it."""
    path = folder / "secrets.json"
    try:
        stack_secrets = json.loads(path.read_text(encoding="utf-8"))
        generated = StackSecrets(str(stack_secrets["token"]), str(stack_secrets["flower_password"]))
    except FileNotFoundError:
        generated = StackSecrets(secrets.token_urlsafe(24), secrets.token_urlsafe(12))
        write_private(path, json.dumps({"token": generated.token, "flower_password": generated.flower_password}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} cannot be read ({error}); delete it to generate new secrets") from error
    token = settings.auth_token.get_secret_value().strip() if settings.auth_token else ""
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    if "," in password:
        raise ConfigError(
            "TIDAL_FLOWER_PASSWORD contains a comma, at which Flower would cut it off; choose another password"
        )
    return StackSecrets(token or generated.token, password or generated.flower_password)


def choose_addresses(settings: Settings, port: int | None, flower_port: int | None) -> Addresses:
    """Return the addresses on which api and Flower listen. Port 0 means any free port.

    If no port for Flower is given and its default port is in use, Flower gets any free port. Raises ConflictError if a
    given port is in use; the message names the option and the setting to change.
    """
    if flower_port is None:
        flower_port = settings.flower_port
    wanted = settings.port if port is None else port
    if wanted and not port_is_free(wanted, settings.host):
        raise ConflictError(
            f"port {wanted} is in use by another program; give the api another one with --port (0 chooses a free port) "
            "or TIDAL_PORT"
        )
    if flower_port and not port_is_free(flower_port):
        raise ConflictError(
            f"port {flower_port} is in use by another program; give Flower another one with --flower-port (0 chooses "
            "a free port) or TIDAL_FLOWER_PORT"
        )
    if flower_port is None:
        flower_port = FLOWER_PORT if wanted != FLOWER_PORT and port_is_free(FLOWER_PORT) else 0
    return Addresses(settings.host, wanted or free_port(), flower_port or free_port())


def has_gpu() -> bool:
    """Return whether an NVIDIA device exists. This does not import torch."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()


def experiments_dir(folder: Path, settings: Settings) -> Path:
    """Return the folder of the artifact store: TIDAL_EXPERIMENTS_DIR if it is set, else a folder in `folder`."""
    return _as_set_or(settings, "experiments_dir", settings.experiments_dir, folder / "experiments")


def data_dir(folder: Path, settings: Settings) -> Path:
    """Return the folder of corpora and token caches: TIDAL_DATA_DIR if it is set, else a folder in `folder`."""
    return _as_set_or(settings, "data_dir", settings.data_dir, folder / "data")


def _as_set_or(settings: Settings, name: str, value: Path, default: Path) -> Path:
    return (value if name in settings.model_fields_set else default).absolute()


def base_environment(folder: Path, settings: Settings, addresses: Addresses) -> dict[str, str]:
    """Return the environment variables that are the same for all processes of the stack.

    `processes` adds the secrets of each process.
    """
    drain = max(1.0, settings.stop_budget_seconds - SERVER_STOP_SECONDS - 1.5)
    return {
        **own_environment(os.environ),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(PROJECT_ROOT),
        "TIDAL_HOME": str(folder),
        "TIDAL_EXPERIMENTS_DIR": str(experiments_dir(folder, settings)),
        "TIDAL_DATA_DIR": str(data_dir(folder, settings)),
        "TIDAL_HOST": addresses.host,
        "TIDAL_PORT": str(addresses.port),
        "TIDAL_UMASK": settings.umask,
        "TIDAL_DRAIN_SECONDS": f"{drain:g}",
    }


def with_database(environment: Mapping[str, str], servers: ServerUrls) -> dict[str, str]:
    """Return `environment` with the variables for a connection to PostgreSQL."""
    own = own_environment(os.environ, database=True)
    return {**own, **environment, "TIDAL_DATABASE_URL": servers.database_url}


def processes(
    settings: Settings,
    addresses: Addresses,
    stack_secrets: StackSecrets,
    servers: ServerUrls,
    environment: Mapping[str, str],
) -> list[ChildSpec]:
    """Return the child processes in the order in which they start.

    PostgreSQL and Valkey are not included, because they start earlier. Each process receives only the secrets that it
    needs: the api receives the token, Flower its password, and the processes that read jobs the password of the
    database.
    """
    longest = max(1.0, settings.stop_budget_seconds - SERVER_STOP_SECONDS - 0.5)
    cpu_only = not has_gpu()
    broker = {**environment, "TIDAL_REDIS_URL": servers.redis_url}
    jobs = with_database(broker, servers)
    api = {**jobs, "TIDAL_AUTH_TOKEN": stack_secrets.token}
    worker = {**own_environment(os.environ, hub=True), **jobs}
    # A process that must not use the database gets a placeholder as its database URL, which overrides one in `.env`.
    without_database = {**broker, "TIDAL_DATABASE_URL": NO_DATABASE}
    generator = {**without_database, **({"TIDAL_GENERATOR_THREADS": "1"} if cpu_only else {})}
    flower = {
        **without_database,
        "TIDAL_FLOWER_HOST": "127.0.0.1",
        "TIDAL_FLOWER_PORT": str(addresses.flower_port),
        "TIDAL_FLOWER_PASSWORD": stack_secrets.flower_password,
    }

    def module(name: str) -> tuple[str, ...]:
        return ("-m", f"services.{name}")

    return [
        ChildSpec("api", module("api"), api, stop_seconds=min(5.0, longest), port=addresses.port),
        ChildSpec("worker", module("worker"), worker, stop_seconds=longest),
        ChildSpec("health", module("health"), jobs, stop_seconds=min(5.0, longest)),
        ChildSpec(
            "generator",
            module("generator"),
            generator,
            # Without a GPU, the generator and the trainer share the cores; the trainer gets the higher priority.
            nice=10 if cpu_only else 0,
            stop_seconds=min(5.0, longest),
            after_ready=True,
        ),
        ChildSpec(
            "flower",
            module("worker.flower"),
            flower,
            stop_seconds=min(5.0, longest),
            after_ready=True,
            port=addresses.flower_port,
        ),
    ]
