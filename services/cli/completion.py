"""Completes ids in a shell: `tidal --install-completion`, then TAB after a command that takes an id.

A completion asks the api that the command would use without options. If it does not reply, there is no suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.errors import TidalError
from services.cli.connection import connect
from tidal_client import Client

MOST_SUGGESTIONS = 100


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Return (id, description) of the newest jobs whose id begins with `incomplete`, and `last`."""
    return _suggestions(
        incomplete,
        lambda client: [
            ("last", "the newest job"),
            *(
                (job.id, f"{job.status} {job.type} {job.name or ''}".rstrip())
                for job in client.jobs(limit=MOST_SUGGESTIONS)
            ),
        ],
    )


def complete_experiment(incomplete: str) -> list[tuple[str, str]]:
    """Return (id, description) of the newest experiments whose id begins with `incomplete`, and `last`."""
    return _suggestions(
        incomplete,
        lambda client: [
            ("last", "the newest experiment"),
            *(
                (found.id, f"{found.status} {found.type} {found.name or ''}".rstrip())
                for found in client.experiments(limit=MOST_SUGGESTIONS)
            ),
        ],
    )


def complete_config(incomplete: str) -> list[tuple[str, str]]:
    """Return (name, kind) of the server's configuration files that begin with `incomplete`."""
    return _suggestions(incomplete, lambda client: [(file.name, file.kind) for file in client.configs()])


def _suggestions(incomplete: str, read: Callable[[Client], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    try:
        with connect(None, None) as client:
            return [found for found in read(client) if found[0].startswith(incomplete)]
    except (TidalError, OSError, ValueError):
        return []
