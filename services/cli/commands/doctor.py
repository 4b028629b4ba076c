"""`tidal doctor`: checks whether this machine has what Tidal needs, and explains how to install what is missing.

It changes nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer
from rich.text import Text

from common.config import get_settings
from common.words import plural
from services.cli.output import out, print_json, table
from services.cli.processes import stack_environment
from tidal_client import instance_folder, read_instance

HUB = "https://huggingface.co"
HUB_CORPUS = "roneneldan/TinyStories"
HUB_SECONDS = 3.0
MINIMUM_FREE_GB = 5.0
"""Free disk space in GB below which a warning is shown."""
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "missing": ("✗", "red")}
TORCH_PACKAGES = ("safetensors", "datasets", "pyarrow")


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `fix` is the advice shown with it; empty if there is nothing to do."""

    name: str
    state: Literal["ok", "warning", "missing"]
    detail: str
    fix: str = ""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the results of the checks as JSON.")] = False,
) -> None:
    """Check this machine, and show how to install what is missing.

    The checks cover Python, packages, PyTorch, PostgreSQL, Valkey, the port, the disk, file permissions, the GPU and
    the Hugging Face hub. The exit status is 1 if a requirement is missing.
    """
    findings = list(examine())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = table("", "", "")
        rows.show_header = False
        for finding in findings:
            mark, style = MARKS[finding.state]
            detail = Text(finding.detail)
            if finding.fix:
                detail.append(f"\n{finding.fix}", style="dim")
            rows.add_row(Text(mark, style=style), finding.name, detail)
        out.print(rows)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[CheckResult]:
    """Run all checks and yield their results."""
    yield python()
    yield packages()
    yield torch()
    yield from servers()
    yield from ports()
    yield disk()
    yield private()
    yield gpu()
    yield hub()


def python() -> CheckResult:
    """Check the version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return CheckResult("Python", "ok", f"{found} in {sys.prefix}")
    return CheckResult(
        "Python",
        "missing",
        found,
        "Python 3.11 to 3.13 is supported; choose one of them, for example with make install PYTHON=python3.12",
    )


def packages() -> CheckResult:
    """Check the packages that every installation of Tidal needs."""
    try:
        wanted = [line for line in requires("tidal") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return CheckResult(
            "Packages",
            "warning",
            "Tidal is not installed; this command runs from the source folder",
            "run `make install`, which creates .venv and installs the packages",
        )
    names = [line.split(";")[0].split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip() for line in wanted]
    absent = [name for name in names if not _installed(name)]
    if absent:
        return CheckResult("Packages", "missing", f"not installed: {', '.join(absent)}", "run `make install`")
    return CheckResult("Packages", "ok", f"all {len(names)} are installed")


def torch() -> CheckResult:
    """Check whether PyTorch and the other packages for training are installed, without importing them."""
    absent = [name for name in ("torch", *TORCH_PACKAGES) if importlib.util.find_spec(name) is None]
    if absent:
        fix = "run `make install`; training and generating on this machine need them"
        return CheckResult("PyTorch", "missing", f"not installed: {', '.join(absent)}", fix)
    return CheckResult("PyTorch", "ok", version("torch"))


def servers() -> Iterator[CheckResult]:
    """Check whether the local stack can find PostgreSQL and Valkey."""
    settings = get_settings()
    asked = subprocess.run(
        [sys.executable, "-m", "services.local", "programs"], capture_output=True, text=True, env=stack_environment()
    )
    try:
        found = json.loads(asked.stdout)
    except ValueError:
        reason = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        yield CheckResult("Servers", "missing", reason, "run `make install`")
        return
    for key, name, setting in (("postgres", "PostgreSQL", "database_url"), ("valkey", "Valkey", "redis_url")):
        program = found[key]
        if setting in settings.model_fields_set:
            yield CheckResult(name, "ok", f"not needed, because TIDAL_{setting.upper()} names a server")
        elif "error" in program:
            what, _, fix = program["error"].partition("; ")
            yield CheckResult(name, "missing", what, fix)
        else:
            yield CheckResult(name, "ok", f"{program['major']} ({program['origin']}), {program['path']}")
    if unused := found["leftovers"]:
        total_mb = sum(entry["bytes"] for entry in unused) / 1e6
        paths = "\n".join(f"rm -r {entry['path']}   # {entry['bytes'] / 1e6:.0f} MB" for entry in unused)
        detail = f"{plural(len(unused), 'data folder')} of deleted installations of Tidal, {total_mb:.0f} MB"
        yield CheckResult("Leftovers", "warning", detail, f"if you do not need their data:\n{paths}")


def ports() -> Iterator[CheckResult]:
    """Check whether the port of the api is free, or used by the local stack of this folder."""
    instance = read_instance()
    if instance is not None:
        yield CheckResult("Local stack", "ok", f"runs at {instance.api_url}")
        return
    port = get_settings().port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            yield CheckResult(
                "Port",
                "warning",
                f"{port} is in use by another program",
                "use `tidal up --port 0` for any free port, or set TIDAL_PORT",
            )
            return
    yield CheckResult("Port", "ok", f"{port} is free")


def disk() -> CheckResult:
    """Check the free space of the disk that contains the data folder."""
    folder = instance_folder()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return CheckResult(
            "Disk",
            "missing",
            f"no permission to write to {folder}",
            "run Tidal in another folder, or set TIDAL_HOME to one",
        )
    free = shutil.disk_usage(folder).free / 1e9
    state: Literal["ok", "warning"] = "ok" if free >= MINIMUM_FREE_GB else "warning"
    return CheckResult(
        "Disk",
        state,
        f"{free:.0f} GB free",
        "" if state == "ok" else f"free some space; training needs {MINIMUM_FREE_GB:.0f} GB",
    )


def private() -> CheckResult:
    """Check whether other users of this machine can read the files of Tidal."""
    umask = get_settings().umask
    if ~int(umask, 8) & 0o007:
        detail = f"TIDAL_UMASK is {umask}: every user of this machine can read experiments, datasets and logs"
        return CheckResult("Privacy", "warning", detail, "remove the setting, or set it to 077 or 027")
    for path, fix in (
        (instance_folder(), "the next `tidal up` corrects the permissions"),
        (Path(".env"), "chmod 600 .env"),
    ):
        if path.exists() and path.stat().st_mode & 0o007:
            detail = f"{path} can be read by every user of this machine"
            return CheckResult("Privacy", "warning", detail, fix)
    return CheckResult("Privacy", "ok", f"other users cannot read the files of Tidal (TIDAL_UMASK {umask})")


def gpu() -> CheckResult:
    """Check whether there is an NVIDIA GPU that torch can use."""
    program = shutil.which("nvidia-smi")
    if program is None:
        detail = "no GPU found; training runs on the CPU"
        if Path("/dev/nvidia0").exists():
            return CheckResult(
                "GPU",
                "warning",
                "there is an NVIDIA device, but nvidia-smi is not installed",
                "install the NVIDIA driver's tools",
            )
        return CheckResult("GPU", "ok", detail)
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=20)
    if asked.returncode or not asked.stdout.strip():
        return CheckResult(
            "GPU", "warning", "nvidia-smi finds no GPU; training runs on the CPU", "check the NVIDIA driver"
        )
    found = "; ".join(asked.stdout.strip().splitlines())
    if _installed("torch") and version("torch").endswith("+cpu"):
        return CheckResult(
            "GPU", "warning", f"{found}, but torch is a CPU build", "install the build of torch 2.13.0 for CUDA"
        )
    return CheckResult("GPU", "ok", found)


def hub() -> CheckResult:
    """Check whether corpora can be downloaded from the Hugging Face hub."""
    address = os.environ.get("HF_ENDPOINT", HUB)
    if hub_reachable():
        return CheckResult("Hub", "ok", f"{address} is reachable")
    fix = "corpora cannot be downloaded from the hub; use builtin:stories or a local file (make demo DATA=path)"
    return CheckResult("Hub", "warning", f"{address} does not respond within {HUB_SECONDS:g} s", fix)


def hub_reachable(seconds: float = HUB_SECONDS) -> bool:
    """Return whether the Hugging Face hub responds within `seconds`.

    False if HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set.
    """
    if any(os.environ.get(name, "") not in ("", "0") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")):
        return False
    try:
        address = os.environ.get("HF_ENDPOINT", HUB)
        reply = httpx.head(f"{address}/api/datasets/{HUB_CORPUS}", timeout=seconds, follow_redirects=True)
        return reply.status_code == 200
    except (httpx.HTTPError, OSError):
        return False


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
