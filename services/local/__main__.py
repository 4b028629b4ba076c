"""The local stack: `python -m services.local up|down|migrate|lend|programs`.

`tidal up`, `tidal demo` and `tidal doctor` start this program. `up` runs the stack, `down` stops it, and `migrate`
migrates the database. `programs` prints as JSON which programs of PostgreSQL and Valkey would be used. `lend` is for a
command that needs the database of a stopped stack: it starts only the two servers, prints their addresses as JSON, and
stops them when its stdin ends. An error is printed on one line, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from common.config import Settings, get_settings
from common.config.private_files import apply_umask
from common.errors import TidalError, UnavailableError
from common.streams import accept_any_text
from common.terminal import Terminal
from services.local import stack
from services.local.binaries import find_postgres, find_valkey
from services.local.server import EmbeddedServer, wait_until_ended
from services.local.server_files import stack_lock, unused_data
from services.local.servers import PostgresServer, ValkeyServer
from services.local.supervisor import StackSupervisor
from tidal_client.local_instance import STATE_FILE, instance_folder, read_instance

DOWN_SECONDS = 20.0


def main() -> int:
    """Parse the command line, run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "migrate", "lend", "programs"))
    parser.add_argument(
        "--folder", type=Path, default=instance_folder(), help="folder for data, logs and state (default: .tidal)"
    )
    parser.add_argument("--port", type=int, help="port of the api; 0 chooses a free port")
    parser.add_argument("--flower-port", type=int, help="port of Flower; 0 chooses a free port")
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the process that started this one has ended"
    )
    parser.add_argument("--quiet", action="store_true", help="write log files only; print nothing")
    accept_any_text()
    options = parser.parse_args()
    apply_umask()
    try:
        if options.command == "down":
            return down(options.folder.absolute())
        if options.command == "migrate":
            return migrate(get_settings())
        if options.command == "lend":
            return lend(options.folder.absolute(), get_settings())
        if options.command == "programs":
            return programs()
        console = None if options.quiet else Terminal()
        return StackSupervisor(
            options.folder,
            get_settings(),
            port=options.port,
            flower_port=options.flower_port,
            console=console,
            parent=os.getppid() if options.with_parent else None,
        ).run()
    except TidalError as error:
        if os.environ.get("TIDAL_DEBUG"):
            raise
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    except OSError as error:
        if os.environ.get("TIDAL_DEBUG"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1


def down(folder: Path) -> int:
    """Stop the stack of `folder`. This includes servers that still run because a supervisor was killed."""
    instance = read_instance(folder)
    if instance is not None:
        supervisor = psutil.Process(instance.pid)
        supervisor.send_signal(signal.SIGTERM)
        if not wait_until_ended(supervisor, DOWN_SECONDS):
            # The kernel ends the services with the supervisor. PostgreSQL and Valkey keep running until they are
            # stopped below.
            supervisor.kill()
            wait_until_ended(supervisor, 5.0)
    for server in (PostgresServer(folder / "postgres"), ValkeyServer(folder / "valkey")):
        if server.folder.exists():
            server.stop()
    (folder / STATE_FILE).unlink(missing_ok=True)
    return 0


def migrate(settings: Settings) -> int:
    """Create or update the tables of the database in TIDAL_DATABASE_URL."""
    from common.db import upgrade  # This import takes half a second, and the supervisor does not need it.

    upgrade(settings.database_url)
    return 0


def lend(folder: Path, settings: Settings) -> int:
    """Run PostgreSQL and Valkey of `folder`, without the services, until stdin ends.

    No stack can start in this folder while the two servers run.
    """
    with stack_lock(folder), ExitStack() as stops:
        addresses = {
            "experiments_dir": str(stack.experiments_dir(folder, settings)),
            "data_dir": str(stack.data_dir(folder, settings)),
        }
        servers: dict[str, EmbeddedServer] = {
            "database_url": PostgresServer(folder / "postgres"),
            "redis_url": ValkeyServer(folder / "valkey"),
        }
        for setting, server in servers.items():
            if setting in settings.model_fields_set:
                addresses[setting] = getattr(settings, setting).get_secret_value()
                continue
            stops.enter_context(server)
            addresses[setting] = server.url
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            sys.stdin.read()
    return 0


def programs() -> int:
    """Print the server programs and the unused server data as JSON.

    For a program that is not installed, print how to install it.
    """
    found: dict[str, Any] = {"leftovers": [{"path": str(path), "bytes": size} for path, size in unused_data()]}
    for name, find in (("postgres", find_postgres), ("valkey", find_valkey)):
        try:
            program = find()
            found[name] = {"path": str(program.path), "major": program.major, "origin": program.origin}
        except UnavailableError as error:
            found[name] = {"error": error.message}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
