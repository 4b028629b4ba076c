"""`tidal env`: writes the file `.env` with random secrets for docker compose."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConflictError
from services.cli.output import out


def command(
    path: Annotated[Path, typer.Option("--path", help="File to write.")] = Path(".env"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file and its secrets.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Profile of docker compose: gpu or cpu. Default: gpu if this machine has an NVIDIA GPU, else cpu.",
        ),
    ] = None,
) -> None:
    """Write `.env` with random secrets for docker compose.

    Only the owner can read the file (mode 0600). Keep it out of version control.
    """
    if path.exists() and not force:
        raise ConflictError(f"{path} already exists and was not changed; --force replaces the file and its secrets")
    chosen = profile or ("gpu" if Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists() else "cpu")
    if chosen not in ("gpu", "cpu"):
        raise typer.BadParameter(f"{chosen} is neither gpu nor cpu", param_hint="--profile")
    # Imported here because the module imports the database packages, which would delay other commands.
    from common.jobs.experiments import NO_COMMIT, commit_hash

    found = commit_hash()
    text = environment_text(chosen, commit=None if found == NO_COMMIT else found)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
    out.print(f"Wrote {path} for the {chosen} profile. Start Tidal with: docker compose up", soft_wrap=True)


def environment_text(profile: str, *, commit: str | None = None) -> str:
    """Return the contents of `.env`. Its random secrets contain only characters that URLs and the file need not escape.

    `commit` is the Git commit from which the images are built; if it is None, TIDAL_COMMIT is not written.
    """
    return "".join(
        f"{line}\n"
        for line in (
            "# Written by `tidal env`; .env.example lists further variables. Keep this file secret.",
            f"TIDAL_AUTH_TOKEN={secrets.token_urlsafe(32)}",
            f"TIDAL_POSTGRES_PASSWORD={secrets.token_hex(24)}",
            f"TIDAL_REDIS_PASSWORD={secrets.token_hex(24)}",
            f"TIDAL_FLOWER_PASSWORD={secrets.token_urlsafe(18)}",
            f"COMPOSE_PROFILES={profile}",
            *(() if commit is None else (f"TIDAL_COMMIT={commit}",)),
        )
    )
