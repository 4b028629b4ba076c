"""Checks the names of TIDAL_ environment variables, and lists those that are not settings.

An empty variable causes an error; an unknown or renamed variable causes a warning. A process that has logged a warning
records the variable's name in the environment of its child processes, so that they do not repeat the warning. The
settings are in `common.config.settings`.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping, MutableMapping
from typing import Final

from common.errors import ConfigError

PREFIX: Final = "TIDAL_"
PASS_ENVIRONMENT: Final = "TIDAL_PASS_ENVIRONMENT"
TEST_PREFIX: Final = "TIDAL_TEST_"
WARNED_NAMES: Final = "TIDAL_UNKNOWN_NAMES"
"""Variable with a comma-separated list of the names for which a parent process has already logged a warning."""

OTHER_VARIABLES: Final[dict[str, str]] = {
    "TIDAL_LOG_LEVEL": "debug, info (default), warning or error",
    "TIDAL_LOG_FORMAT": "text (default), or json: one JSON object per line",
    "TIDAL_DEBUG": "1: commands show tracebacks",
    "TIDAL_HOME": "folder of the local stack; default `.tidal`",
    "TIDAL_URL": "URL of the api that commands use",
    "TIDAL_API_PORT": "compose: port on which the api is published; commands on the same host connect to it",
    "TIDAL_BIND": "compose: address on which ports are published",
    "TIDAL_COMMIT": "commit from which images are built; part of the id of every experiment",
    "TIDAL_POSTGRES_PASSWORD": "compose: password of PostgreSQL, any character",
    "TIDAL_REDIS_PASSWORD": "compose: password of Redis, any character",
    "TIDAL_WORKER_MEMORY": "compose: memory limit of a training worker; default 16g",
    "TIDAL_GENERATOR_MEMORY": "compose: memory limit of a generator; default 8g",
    "TIDAL_API_MEMORY": "compose: memory limit of the api; default 2g",
    "TIDAL_POSTGRES_MEMORY": "compose: memory limit of PostgreSQL; default 2g",
    "TIDAL_REDIS_MEMORY": "compose: memory limit of Redis; default 1536m",
    "TIDAL_SMALL_MEMORY": "compose: memory limit of each of health, Flower and migrations; default 1g",
    "TIDAL_PYTHON_IMAGE": "compose: base image of Tidal's images; `make pin` sets it to a digest",
    "TIDAL_POSTGRES_IMAGE": "compose: image of PostgreSQL; `make pin` sets it to a digest",
    "TIDAL_REDIS_IMAGE": "compose: image of Redis; `make pin` sets it to a digest",
    "TIDAL_PASS_ENVIRONMENT": "comma-separated names of further variables to pass to trainers and the processes of "
    "`tidal up`, which otherwise receive only the variables that Tidal lists",
    "TIDAL_CHROMIUM": "tests: path of the Chromium to use",
    "TIDAL_REQUIRE_BROWSER": "tests: fail instead of skip if there is no browser",
}
"""{name: meaning} of variables that are not settings: commands, compose or tests read them, or Tidal reads them before
the settings."""
INTERNAL_VARIABLES: Final = frozenset({"TIDAL_CHILD_FD", "TIDAL_PARENT_PID", "TIDAL_FAKE_TRAINER", WARNED_NAMES})


def refuse_empty(found: Mapping[str, str | None], where: str) -> None:
    """Raise ConfigError, which names the variables and `where`, if TIDAL_ variables are set to an empty value."""
    empty = sorted(name for name, value in found.items() if name.startswith(PREFIX) and not (value or "").strip())
    if empty:
        raise ConfigError(f"{', '.join(empty)}: empty in {where}; set a value, or unset the variable for the default")


def warn_of_unknown(
    settings: Collection[str], environ: MutableMapping[str, str] = os.environ, *, in_file: Collection[str] = ()
) -> None:
    """Log a warning for each TIDAL_ variable that Tidal does not read, and suggest the nearest known name.

    `settings` are the variables of the settings, `in_file` the variables in `.env`.
    """
    known = {*settings, *OTHER_VARIABLES}
    unknown = {
        name
        for name in {*environ, *in_file}
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in known | INTERNAL_VARIABLES
    }
    for name in _not_yet_warned(unknown, environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists the known variables"
        logging.getLogger(__name__).warning("%s is set, but Tidal does not read it; %s", name, hint)


def warn_of_renamed(
    renamed: Mapping[str, str], environ: MutableMapping[str, str] = os.environ, *, in_file: Collection[str] = ()
) -> None:
    """Log a warning for each variable that is set by its former name. `renamed` is {former name: present name}."""
    for name in _not_yet_warned(renamed.keys() & {*environ, *in_file}, environ):
        logging.getLogger(__name__).warning(
            "%s has been renamed to %s; the old name still works, please use the new one", name, renamed[name]
        )


def _not_yet_warned(names: Collection[str], environ: MutableMapping[str, str]) -> list[str]:
    """Return, sorted, those `names` that are not yet in the variable WARNED_NAMES of `environ`; add them to it."""
    warned = set(environ.get(WARNED_NAMES, "").split(",")) - {""}
    new = set(names) - warned
    if new:
        environ[WARNED_NAMES] = ",".join(sorted(new | warned))
    return sorted(new)
