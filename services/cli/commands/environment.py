"""`tidal env`: write `.env` with random secrets for docker compose. An existing file is left alone."""

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
    force: Annotated[bool, typer.Option("--force", help="Replace it; the old secrets are gone.")] = False,
    profile: Annotated[str | None, typer.Option("--profile", help="gpu or cpu; by default what is here.")] = None,
) -> None:
    """Write `.env` with random secrets for docker compose.

    Mode 0600; keep it out of version control.
    """
    if path.exists() and not force:
        raise ConflictError(f"{path} exists and stays as it is; --force replaces it (and every secret in it)")
    chosen = profile or ("gpu" if Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists() else "cpu")
    if chosen not in ("gpu", "cpu"):
        raise typer.BadParameter(f"{chosen}: gpu and cpu are possible", param_hint="--profile")
    # Imported here: it needs the database's packages, which other commands start faster without.
    from common.jobs.experiments import NO_COMMIT, commit

    found = commit()
    text = environment_text(chosen, commit=None if found == NO_COMMIT else found)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
    out.print(f"Wrote {path} for the {chosen} profile. Next: docker compose up", soft_wrap=True)


def environment_text(profile: str, *, commit: str | None = None) -> str:
    """The content: one random secret per name, safe in URLs and unquoted in the file.

    `commit`: what images will be built from; None leaves it out.
    """
    return "".join(
        f"{line}\n"
        for line in (
            "# Written by `tidal env`; see .env.example for what else can be set. Keep it secret.",
            f"TIDAL_AUTH_TOKEN={secrets.token_urlsafe(32)}",
            f"TIDAL_POSTGRES_PASSWORD={secrets.token_hex(24)}",
            f"TIDAL_REDIS_PASSWORD={secrets.token_hex(24)}",
            f"TIDAL_FLOWER_PASSWORD={secrets.token_urlsafe(18)}",
            f"COMPOSE_PROFILES={profile}",
            *(() if commit is None else (f"TIDAL_COMMIT={commit}",)),
        )
    )
