"""Run the api: `python -m services.api`. Address, servers and token come from the environment (`TIDAL_…`).

Exits with 2 and one line when it must not start: no token on a public address, a bad setting, the port in use.
"""

from __future__ import annotations

import errno
import gc
import signal
import socket
import sys

from pydantic import ValidationError

from common.config import Settings, get_settings
from common.config.private_files import apply_umask
from common.errors import TidalError
from common.logging import configure, get_logger
from services.api.app import create_app
from services.api.auth import administrator_token
from services.api.connections import raise_descriptor_limit
from services.api.server import BACKLOG, make_server


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    configure("api")
    log = get_logger("services.api")
    try:
        settings = get_settings()
        raise_descriptor_limit()
        apply_umask(settings)
        token, made = administrator_token(settings)
        app = create_app(settings, token)
        listener = listen(settings)
    except (TidalError, ValidationError, OSError) as error:
        sys.stderr.write(f"tidal api: {error}\n")
        return 2
    host, port = listener.getsockname()[:2]
    if made:
        sys.stdout.write(f"No TIDAL_AUTH_TOKEN is set; this run accepts the token: {token}\n")
        sys.stdout.flush()
    server = make_server(app, settings)
    # uvicorn raises the signal again once it has stopped; a stop that was asked for exits with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # Everything loaded so far lives as long as the process; frozen objects are skipped by later garbage collections,
    # which thousands of connections would otherwise make slow.
    gc.collect()
    gc.freeze()
    log.info("listening", address=f"http://{host}:{port}", docs=f"http://{host}:{port}{app.root_path}/docs")
    server.run(sockets=[listener])
    return 0


def listen(settings: Settings) -> socket.socket:
    """The listening socket, so that a port in use is an error before anything else starts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named asyncio sets TCP_NODELAY on every connection; without, a reply waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":
        # Inherited by each connection: a peer that takes nothing, gone or not, is given up by the kernel. Closing in
        # the process would wait for it to take the rest. Later than the stream's own timeout, which counts.
        patience = round(2000 * settings.stream_client_seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(BACKLOG)  # from here on connections wait instead of being refused
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"port {settings.port} on {settings.host} is in use; stop what listens there or set TIDAL_PORT"
            ) from None
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    sys.exit(main())
