"""`python -m services.worker.flower`: Flower, read-only, behind a login (user "tidal").

Flower shows doorbells and workers, the dashboard shows jobs. Address and password come from TIDAL_FLOWER_HOST,
TIDAL_FLOWER_PORT and TIDAL_FLOWER_PASSWORD, never from the command line that others can see. Flower's own read-only
mode leaves the endpoints that publish tasks open, so they are taken out here.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery.bin.celery import main as celery_main
from flower import urls

from common.errors import ConfigError
from common.logging import configure, get_logger

USER = "tidal"
WRITING = (
    "/api/worker/",
    *(
        f"/api/task/{verb}"
        for verb in ("apply", "async-apply", "send-task", "abort", "timeout", "rate-limit", "revoke")
    ),
)
"""Paths of endpoints that change something."""


def main() -> int:
    """Serve until a signal; 1 when the password is missing."""
    try:
        environ = flower_environment(dict(os.environ))
    except ConfigError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    configure("flower")
    get_logger(__name__).info("Flower starts", address=f"http://{environ['FLOWER_ADDRESS']}:{environ['FLOWER_PORT']}")
    os.environ.update(environ)
    take_out_writing()
    sys.argv[1:] = ["--app", "services.worker.celery_app", "flower"]
    return int(celery_main() or 0)


def flower_environment(environ: dict[str, str]) -> dict[str, str]:
    """Flower's own variables from ours; ConfigError without a password."""
    password = environ.get("TIDAL_FLOWER_PASSWORD", "")
    if not password:
        raise ConfigError("TIDAL_FLOWER_PASSWORD is not set; Flower does not start without a login")
    if "," in password:
        raise ConfigError("TIDAL_FLOWER_PASSWORD holds a comma, at which Flower would cut it; choose another one")
    return {
        "FLOWER_ADDRESS": environ.get("TIDAL_FLOWER_HOST", "127.0.0.1"),
        "FLOWER_PORT": environ.get("TIDAL_FLOWER_PORT", "5555"),
        "FLOWER_BASIC_AUTH": f"{USER}:{password}",
        "FLOWER_READ_ONLY": "true",
    }


def take_out_writing() -> None:
    """Remove the endpoints that change something from Flower's table, in place."""
    urls.handlers[:] = [handler for handler in urls.handlers if not _path(handler).startswith(WRITING)]


def _path(handler: Any) -> str:
    """Of a tuple or a tornado.routing.URLSpec."""
    return str(handler[0] if isinstance(handler, tuple) else handler.regex.pattern)


if __name__ == "__main__":
    sys.exit(main())
