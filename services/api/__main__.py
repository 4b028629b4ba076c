"""Run the api: `python -m services.api`. All settings come from the environment (`TIDAL_…`).

If the process cannot start, it prints one line and exits with 2. The reason is a public address without a token, an
invalid setting, or a port that is in use.
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
    """Serve until SIGTERM or SIGINT; return the exit code."""
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
    # When a signal has stopped uvicorn, uvicorn raises this signal again. Ignore the second one, because a requested
    # stop must exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # Garbage collections skip frozen objects. All objects loaded so far live as long as the process; freezing them
    # keeps collections short with thousands of connections.
    gc.collect()
    gc.freeze()
    log.info("listening", address=f"http://{host}:{port}", docs=f"http://{host}:{port}{app.root_path}/docs")
    server.run(sockets=[listener])
    return 0


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket. Raises OSError when the address or the port cannot be used."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol argument is given. Without TCP_NODELAY a reply waits 40 ms for an
    # ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":
        # Each connection inherits this option: the kernel drops a peer that has acknowledged no data for this time. An
        # ordinary close by the process would wait for the peer to read the remaining data. The time is twice the time
        # limit for stream clients. Therefore the api drops a slow stream client, and counts it, before the kernel does.
        timeout_ms = round(2000 * settings.stream_client_seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(BACKLOG)  # from now on the kernel queues connections instead of refusing them
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
