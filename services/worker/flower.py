"""`python -m services.worker.flower`: runs Flower, read-only and behind a login (user "tidal").

Flower shows Celery's messages and workers; jobs are shown in the dashboard. Address and password come from
TIDAL_FLOWER_HOST, TIDAL_FLOWER_PORT and TIDAL_FLOWER_PASSWORD, not from the command line, because other users of the
machine can see command lines. Flower's own read-only mode leaves endpoints that publish tasks open. Therefore this
module removes those endpoints; `services.worker.flower_guard` protects the remaining ones.
"""

from __future__ import annotations

import os
import sys

from celery.bin.celery import main as celery_main
from flower import urls

from common.access import KnownHosts, TrustedProxies
from common.config import Settings, get_settings
from common.config.private_files import apply_umask
from common.errors import ConfigError
from common.logging import configure, get_logger
from services.worker.flower_guard import FlowerAccess, guard, path_of

USER = "tidal"
PORT = 5555
WRITING_PATHS = (
    "/api/worker/",
    *(
        f"/api/task/{verb}"
        for verb in ("apply", "async-apply", "send-task", "abort", "timeout", "rate-limit", "revoke")
    ),
)
"""Path prefixes of the endpoints that change something."""


def main() -> int:
    """Serve until a signal arrives. Return 1 if a setting is invalid or the password is missing."""
    try:
        settings = get_settings()
        environ = flower_environment(settings)
    except ConfigError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    apply_umask(settings)
    configure("flower")
    get_logger(__name__).info("Flower starts", address=f"http://{environ['FLOWER_ADDRESS']}:{environ['FLOWER_PORT']}")
    os.environ.update(environ)
    remove_writing_endpoints()
    hosts = KnownHosts(settings.allowed_hosts, listens_on=settings.flower_host)
    access = FlowerAccess(environ["FLOWER_BASIC_AUTH"], hosts, TrustedProxies(settings.trusted_proxies))
    guard(urls.handlers, urls.settings, access)
    sys.argv[1:] = ["--app", "services.worker.celery_app", "flower"]
    return int(celery_main() or 0)


def flower_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables for Flower. Raises ConfigError if the password is missing or invalid."""
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    if not password:
        raise ConfigError("TIDAL_FLOWER_PASSWORD is not set; Flower does not start without a login")
    if "," in password:
        raise ConfigError(
            "TIDAL_FLOWER_PASSWORD contains a comma, at which Flower would cut it off; choose another password"
        )
    return {
        "FLOWER_ADDRESS": settings.flower_host,
        "FLOWER_PORT": str(PORT if settings.flower_port is None else settings.flower_port),
        "FLOWER_BASIC_AUTH": f"{USER}:{password}",
        "FLOWER_READ_ONLY": "true",
    }


def remove_writing_endpoints() -> None:
    """Remove the endpoints of `WRITING_PATHS` from Flower's table of handlers, which is changed in place."""
    urls.handlers[:] = [handler for handler in urls.handlers if not path_of(handler).startswith(WRITING_PATHS)]


if __name__ == "__main__":
    sys.exit(main())
