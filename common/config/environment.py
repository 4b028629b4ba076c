"""Names in the environment: which ones Tidal reads outside its settings, an empty one is an error, an unknown one a
warning.

A process that has warned leaves a mark for its children, so that one mistake is one warning. Leaves out what the
settings themselves are (`common.config.settings`).
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping, MutableMapping
from typing import Final

from common.errors import ConfigError

PREFIX: Final = "TIDAL_"
PASS: Final = "TIDAL_PASS_ENVIRONMENT"
OF_TESTS: Final = "TIDAL_TEST_"
MARK: Final = "TIDAL_UNKNOWN_NAMES"
"""Names a parent process has warned of, separated by commas."""

OTHER_VARIABLES: Final[dict[str, str]] = {
    "TIDAL_LOG_LEVEL": "debug, info (default), warning or error",
    "TIDAL_LOG_FORMAT": "text (default), or json: one JSON object per line",
    "TIDAL_DEBUG": "1: commands show tracebacks",
    "TIDAL_HOME": "folder of the local stack; default `.tidal`",
    "TIDAL_URL": "the api that commands talk to",
    "TIDAL_API_PORT": "compose: where the api is published; commands on the same host use it",
    "TIDAL_BIND": "compose: address that ports are published on",
    "TIDAL_COMMIT": "the commit images are built from, part of every experiment's name",
    "TIDAL_POSTGRES_PASSWORD": "compose: password of PostgreSQL, any character",
    "TIDAL_REDIS_PASSWORD": "compose: password of Redis, any character",
    "TIDAL_WORKER_MEMORY": "compose: memory limit of a training worker, 16g",
    "TIDAL_GENERATOR_MEMORY": "compose: memory limit of a generator, 8g",
    "TIDAL_API_MEMORY": "compose: memory limit of the api, 2g",
    "TIDAL_POSTGRES_MEMORY": "compose: memory limit of PostgreSQL, 2g",
    "TIDAL_REDIS_MEMORY": "compose: memory limit of Redis, 1536m",
    "TIDAL_SMALL_MEMORY": "compose: memory limit of health, Flower and migrations, 1g",
    "TIDAL_PYTHON_IMAGE": "compose: base image of Tidal's images; `make pin` sets it to a digest",
    "TIDAL_POSTGRES_IMAGE": "compose: image of PostgreSQL; `make pin` sets it to a digest",
    "TIDAL_REDIS_IMAGE": "compose: image of Redis; `make pin` sets it to a digest",
    "TIDAL_PASS_ENVIRONMENT": "comma-separated names of further variables to pass to trainers and the processes of "
    "`tidal up`, which otherwise receive only the variables that Tidal lists",
    "TIDAL_CHROMIUM": "tests: the browser to use",
    "TIDAL_REQUIRE_BROWSER": "tests: fail where there is no browser",
}
"""What is read before there are settings, by commands, by compose or by tests."""
INTERNAL_VARIABLES: Final = frozenset({"TIDAL_CHILD_FD", "TIDAL_PARENT_PID", "TIDAL_FAKE_TRAINER", MARK})


def refuse_empty(found: Mapping[str, str | None], where: str) -> None:
    """ConfigError that names the variables with TIDAL_ that are set to nothing."""
    empty = sorted(name for name, value in found.items() if name.startswith(PREFIX) and not (value or "").strip())
    if empty:
        raise ConfigError(f"{', '.join(empty)}: set to nothing in {where}; give a value, or unset it for the default")


def warn_of_unknown(
    settings: Collection[str], environ: MutableMapping[str, str] = os.environ, *, in_file: Collection[str] = ()
) -> None:
    """One warning for each name with TIDAL_ that nothing reads, with the nearest one that is read.

    `settings` are the names that set something, `in_file` those that `.env` has.
    """
    known = {*settings, *OTHER_VARIABLES}
    warned = set(environ.get(MARK, "").split(",")) - {""}
    unknown = {
        name
        for name in {*environ, *in_file}
        if name.startswith(PREFIX) and not name.startswith(OF_TESTS) and name not in known | INTERNAL_VARIABLES
    }
    for name in sorted(unknown - warned):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists those that count"
        logging.getLogger(__name__).warning("%s is set, and nothing reads it; %s", name, hint)
    if unknown - warned:
        environ[MARK] = ",".join(sorted(unknown | warned))
