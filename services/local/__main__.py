"""The local stack as a process of its own: `python -m services.local up` and `python -m services.local down`.

`tidal up` and `tidal demo` start this; nothing else needs to. Errors are one line and exit status 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import psutil
from rich.console import Console

from common.client.local_instance import STATE_FILE, instance_folder, read_instance
from common.config import Settings
from common.errors import TidalError
from services.local.server import gone
from services.local.servers import PostgresServer, ValkeyServer
from services.local.supervisor import Supervisor

DOWN_SECONDS = 20.0


def main() -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--folder", type=Path, default=instance_folder(), help="data, logs and state (default .tidal)")
    parser.add_argument("--port", type=int, help="port of the api; 0: any free one")
    parser.add_argument("--flower-port", type=int, help="port of Flower; 0: any free one")
    parser.add_argument("--quiet", action="store_true", help="log files only")
    options = parser.parse_args()
    try:
        if options.command == "down":
            return down(options.folder.absolute())
        console = None if options.quiet else Console(highlight=False)
        return Supervisor(
            options.folder, Settings(), port=options.port, flower_port=options.flower_port, console=console
        ).run()
    except TidalError as error:
        if os.environ.get("TIDAL_DEBUG"):
            raise
        sys.stderr.write(f"error: {error.message}\n")
        return 1


def down(folder: Path) -> int:
    """Stop the stack of `folder` and servers that outlived a killed supervisor."""
    instance = read_instance(folder)
    if instance is not None:
        supervisor = psutil.Process(instance.pid)
        supervisor.send_signal(signal.SIGTERM)
        if not gone(supervisor, DOWN_SECONDS):
            supervisor.kill()  # takes the children with it; the servers follow below
            gone(supervisor, 5.0)
    for server in (PostgresServer(folder / "postgres"), ValkeyServer(folder / "valkey")):
        if server.folder.exists():
            server.stop()
    (folder / STATE_FILE).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
