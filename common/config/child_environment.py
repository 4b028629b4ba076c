"""The environment of a child process that computes: no secrets of the servers, and what torch needs on a CPU.

Leaves out the address of Redis: trainers get it in their first message, the generator's engine as a variable.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.config.compute_environment import with_compute_environment

SECRETS = frozenset(
    {
        "TIDAL_DATABASE_URL",
        "TIDAL_DATABASE_URL_PASSWORD",
        "TIDAL_AUTH_TOKEN",
        "TIDAL_FLOWER_PASSWORD",
        "TIDAL_POSTGRES_PASSWORD",
        "DATABASE_URL",
        "PGPASSWORD",
    }
)
"""What trainers and engines do not see: they know no database and nobody logs in to them."""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without SECRETS, with `common.config.compute_environment`."""
    return with_compute_environment({name: value for name, value in environ.items() if name not in SECRETS})
