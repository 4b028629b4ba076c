"""Create `.venv`, install what the project needs into it, and print one progress line per step.

The Makefile calls this script with the system's Python; it uses the standard library only.
`python3 scripts/bootstrap.py test` also installs the extra `test`. When pyproject.toml and the extras are unchanged,
the script ends within milliseconds and installs nothing. The environment variable TORCH_INDEX names another package
index for torch, such as one with CPU builds. The full output of pip is in `.venv/install.log`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "install.log"
NEEDED_GB = 6
QUICKLY = ("--disable-pip-version-check", "--no-compile")
"""pip options that save time. Compiling all 17,500 modules to bytecode takes a minute; Python compiles each on first
import."""


def main() -> int:
    """Install the project with the extras given on the command line; return the exit status."""
    extras = ["local", "mcp", "torch", *sys.argv[1:]]
    if sys.version_info < (3, 11):
        return fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}. Try: make … PYTHON=python3.12")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes())
    wanted.update(f"{os.environ.get('TORCH_INDEX', '')} {ROOT}".encode())
    stamp = VENV / "installed"
    installed = stamp.read_text().split() if stamp.exists() else []
    if installed and installed[0] == wanted.hexdigest():
        if set(extras) <= set(installed[1:]):
            build_native_library()
            return 0
        extras = sorted({*extras, *installed[1:]})
    started = time.monotonic()
    if not (VENV / "bin" / "pip").exists():
        free = shutil.disk_usage(ROOT).free / 1e9
        if free < NEEDED_GB:
            return fail(f"the disk of {ROOT} has {free:.1f} GB free, but .venv needs up to {NEEDED_GB} GB")
        print_line("[1/3] creating .venv")
        made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True)
        if made.returncode:
            hint = "\nOn Debian and Ubuntu: apt install python3-venv" if "ensurepip" in made.stdout else ""
            shutil.rmtree(VENV, ignore_errors=True)
            return fail(made.stdout + made.stderr + hint)
    index = os.environ.get("TORCH_INDEX")
    # torch is installed first, in its exact version. With a version range, pip could replace a CPU build by CUDA
    # packages of several gigabytes.
    torch = ["torch==2.13.0", *(["--index-url", index] if index else [])]
    project = ["-c", "constraints.txt", "-e", f".[{','.join(extras)}]"]
    for title, arguments in (("[2/3] installing torch", torch), ("[3/3] installing tidal", project)):
        if pip(title, arguments):
            return fail(LOG.read_text()[-2000:] + f"\ninstallation failed; the full output of pip is in {LOG}")
    build_native_library()
    stamp.write_text(" ".join([wanted.hexdigest(), *extras]))
    print_line(f".venv is ready after {time.monotonic() - started:.0f} s")
    return 0


def build_native_library() -> None:
    """Compile the C++ code for generation, unless that is done. Without a compiler, print that PyTorch generates."""
    subprocess.run([sys.executable, ROOT / "common/generation/native/build.py"])


def pip(title: str, arguments: list[str]) -> int:
    """Run pip install, write its output to the log file, and show its current step in one line of the terminal."""
    tty = sys.stdout.isatty()
    started = time.monotonic()
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", *QUICKLY, *arguments]
    if not tty:
        print_line(title)
    with (
        LOG.open("a") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            step = re.match(
                r"\s*(Collecting \S+|Downloading \S+.*\)|Installing collected packages|Building \S+.*)", line
            )
            if tty and step:
                print(
                    f"\r\033[K{title}: {step[1].strip()[:90]} ({time.monotonic() - started:.0f} s)", end="", flush=True
                )
        code = process.wait()
    if tty:
        print("\r\033[K", end="")
    print_line(f"{title}: {'failed' if code else 'done'} in {time.monotonic() - started:.0f} s")
    return code


def print_line(text: str) -> None:
    """Print a line at once, without buffering."""
    print(text, flush=True)


def fail(text: str) -> int:
    """Print an error message and return the exit status 1."""
    print(text.strip(), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
