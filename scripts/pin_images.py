"""Pin the base images of docker-compose.yml by digest in `.env`; `make pin` runs this script.

A tag such as `postgres:17` refers to another image after each rebuild; a digest does not. The script requests the
digests from the registry with `docker buildx imagetools`, so it needs Docker and the internet. It replaces the lines of
`.env` that it wrote earlier and keeps all others. To update the images, run it again, then
`docker compose up -d --build`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {
    "TIDAL_PYTHON_IMAGE": "python:3.11-slim",
    "TIDAL_POSTGRES_IMAGE": "postgres:17",
    "TIDAL_REDIS_IMAGE": "redis:7",
}
"""Maps each variable of docker-compose.yml to the image tag that it pins by digest."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> int:
    """Write the digests of all three images. If one cannot be determined, write nothing and return 1."""
    path = ROOT / ".env"
    if not path.exists():
        return fail(f"{path} does not exist; run `make env` first")
    pins: list[str] = []
    for name, tag in IMAGES.items():
        command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return fail(f"the digest of {tag} is unknown: {error}")
        digest = done.stdout.strip()
        if done.returncode or not DIGEST.fullmatch(digest):
            return fail(
                f"the digest of {tag} is unknown: {(done.stderr or done.stdout).strip() or 'docker printed nothing'}"
            )
        pins.append(f"{name}={tag}@{digest}")
        print(pins[-1], flush=True)
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if line.split("=")[0] not in IMAGES]
    temporary = path.with_name(".env.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join([*kept, *pins]) + "\n")
    temporary.replace(path)
    return 0


def fail(text: str) -> int:
    """Print one line to stderr and return 1, the exit status."""
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
