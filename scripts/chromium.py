"""Find the Chromium of the browser tests, or install Debian's package.

If there is no Chromium, `python3 scripts/chromium.py` installs the package `chromium`, provided that root runs it on a
system with apt-get. Without a browser, the browser tests are reported as skipped. The environment variable
TIDAL_CHROMIUM gives the path of another browser. The script uses the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
WITHOUT = (
    "No Chromium found: the browser tests will be reported as skipped (set TIDAL_CHROMIUM to the path of a browser)."
)


def find() -> str | None:
    """Return the path of the browser, or None if there is none."""
    named = os.environ.get("TIDAL_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Install Chromium if it is missing and can be installed. Always return 0."""
    if find() is not None:
        return 0
    if shutil.which("apt-get") is None or os.geteuid() != 0 or os.environ.get("TIDAL_CHROMIUM"):
        print(WITHOUT, flush=True)
        return 0
    print("installing Debian's Chromium for the browser tests (a minute or two)", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
    for command in (install, ["apt-get", "update", "-q"], install):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True)
        if command is install and done.returncode == 0:
            return 0
    print(f"{done.stderr.strip()[-500:]}\n{WITHOUT}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
