"""`python -m services.worker.flower`: Flower, read-only, behind a login (user "tidal").

Flower shows notifications and workers; the dashboard shows jobs. Address and password come from TIDAL_FLOWER_HOST,
TIDAL_FLOWER_PORT and TIDAL_FLOWER_PASSWORD, never from the command line, which other users can see. Flower's read-only
mode does not close the endpoints that publish tasks, so this module removes them; `services.worker.flower_guard`
protects the other ones.
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
"""Prefixes of the paths of endpoints that change something."""


def main() -> int:
    """Serve until a signal arrives; return 1 if the settings are invalid or the password is missing."""
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
    """Return the environment variables of Flower for our settings. Raises ConfigError without a valid password."""
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
    """Remove the endpoints that change something from Flower's table of handlers, in place."""
    urls.handlers[:] = [handler for handler in urls.handlers if not path_of(handler).startswith(WRITING_PATHS)]


if __name__ == "__main__":
    sys.exit(main())
