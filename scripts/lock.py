"""Write `requirements/*.txt`, the lists of the packages that the images install, with exact versions and hashes.

`make lock` runs this script. The versions come from `constraints.txt`; change them there first.
`requirements/torch.txt` lacks torch and its CUDA packages, because their hashes depend on the package index from which
the image is built (CPU or CUDA).
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
HEAD = "# Written by `make lock` from pyproject.toml and constraints.txt; the images install exactly these files.\n"
EXTRAS: dict[str, list[str]] = {"slim": [], "torch": ["torch"]}
"""Maps each file name to the extras of pyproject.toml whose packages the file contains."""
INDEX_DEPENDENT = ("torch", "triton", "cuda-", "nvidia-")
"""Packages whose files differ between torch's package indexes for CPU and CUDA. A name with a trailing hyphen is a
prefix."""


def main() -> int:
    """Write the files of EXTRAS. If uv fails, exit with uv's status."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        build: list[str] = tomllib.load(file)["build-system"]["requires"]
    for name, extras in EXTRAS.items():
        pinned = resolve(extras, build)
        kept = [entry for entry in split(pinned) if not depends_on_index(entry)]
        (ROOT / "requirements" / f"{name}.txt").write_text(HEAD + "".join(kept), encoding="utf-8")
        print(f"requirements/{name}.txt: {len(kept)} packages")
    return 0


def resolve(extras: list[str], build: list[str]) -> str:
    """Return the requirements file that uv resolves for the project with `extras` and `build`, for every platform."""
    command: list[str | Path] = [
        *(UV, "pip", "compile", "pyproject.toml", "-", "--constraints", "constraints.txt", "--generate-hashes"),
        *("--python-version", "3.11", "--universal", "--no-header", "--no-annotate", "--quiet", "--native-tls"),
        *(part for extra in extras for part in ("--extra", extra)),
    ]
    done = subprocess.run(command, cwd=ROOT, input="\n".join(build), capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(done.returncode)
    return done.stdout


def split(text: str) -> list[str]:
    """Split a requirements file into entries: each is a line `name==version` with the indented lines of its hashes."""
    entries: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")):
            entries[-1] += line
        else:
            entries.append(line)
    return entries


def depends_on_index(entry: str) -> bool:
    """Return whether torch's package indexes for CPU and for CUDA have different files of the entry's package."""
    name = entry.partition("==")[0].partition("[")[0]
    return any(name.startswith(known) if known.endswith("-") else name == known for known in INDEX_DEPENDENT)


if __name__ == "__main__":
    sys.exit(main())
