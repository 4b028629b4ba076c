"""Compile the C++ code of this package to a shared library: `python common/generation/native/build.py`.

`make install` does it if there is a compiler (the environment variable CXX, g++ or clang++). The library lies in the
folder `build` beside the sources. Its name contains a digest of the sources and the compiler's flags, so a library of
other sources is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent
FOLDER = SOURCES / "build"
FLAGS = ("-std=c++20", "-O3", "-mavx2", "-mfma", "-shared", "-fPIC", "-pthread")
COMPILERS = ("g++", "clang++")
SECONDS = 300
"""Longest time of a compilation; it usually takes about ten seconds."""


def library_path() -> Path:
    """Return where the library of these sources is, or would be."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp")):
        digest.update(source.name.encode() + source.read_bytes())
    return FOLDER / f"decoder-{digest.hexdigest()[:16]}.so"


def compiler() -> str | None:
    """Return the C++ compiler to use, or None if there is none."""
    named = os.environ.get("CXX")
    return next((found for name in ((named,) if named else COMPILERS) if (found := shutil.which(name))), None)


def build_library() -> str | None:
    """Compile the library unless it exists. Return the reason if there is none afterwards, else None."""
    target = library_path()
    if target.exists():
        return None
    found = compiler()
    if found is None:
        return "there is no C++ compiler"
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        FOLDER.mkdir(exist_ok=True)
        command = [found, *FLAGS, "-o", str(temporary), str(SOURCES / "decoder.cpp")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return f"{found} failed: {lines[0] if lines else f'exit status {done.returncode}'}"
        for old in FOLDER.glob("decoder-*.so"):
            old.unlink()
        temporary.replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the library cannot be built: {error}"
    finally:
        temporary.unlink(missing_ok=True)
    return None


if __name__ == "__main__":
    problem = build_library()
    if problem:
        sys.stdout.write(f"the fast generation backend is not built: {problem}; PyTorch is used instead\n")
