"""The images install the tested versions, and compose runs them hardened.

`make compose-check` checks real containers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    """Return {canonical package name: pinned version}."""
    return {canonicalize_name(name): version for name, version in PINNED.findall((ROOT / path).read_text())}


@pytest.mark.parametrize(("name", "extras"), [("slim", ()), ("torch", ("torch",))])
def test_an_image_installs_the_tested_versions_by_hash(name: str, extras: tuple[str, ...]) -> None:
    locked, tested = pins(f"requirements/{name}.txt"), pins("constraints.txt")
    differing = {package: (locked[package], tested[package]) for package in locked.keys() & tested.keys()}
    assert not {package: pair for package, pair in differing.items() if pair[0] != pair[1]}, "run `make lock`"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(requirement for extra in extras for requirement in project["optional-dependencies"][extra]),
    ]
    needed = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, listed)
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert needed - {"torch"} <= locked.keys(), "run `make lock`"
    for entry in re.split(r"\n(?=[a-z])", (ROOT / f"requirements/{name}.txt").read_text())[1:]:
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_gets_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["pids_limit"]
    assert not service.get("privileged") and "network_mode" not in service
    published = "published" in service["networks"]
    assert published == ("ports" in service)
    assert all(port.startswith("${TIDAL_BIND:-127.0.0.1}:") for port in service.get("ports", ()))


def test_only_services_that_need_the_database_reach_it() -> None:
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]
    assert networks["database"] == networks["broker"] == {"internal": True}
    members = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert members == {"postgres", "migrate", "api", "health", "worker", "worker-cpu"}


def fake_docker(folder: Path, text: str) -> dict[str, str]:
    """Return an environment in which the shell command `text` replaces `docker`, because tests have no network."""
    folder.mkdir(exist_ok=True)
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def pin(tmp_path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a copy of `scripts/pin_images.py` in the project folder `tmp_path`."""
    (tmp_path / "scripts").mkdir(exist_ok=True)
    script = tmp_path / "scripts" / "pin_images.py"
    script.write_text((ROOT / "scripts" / "pin_images.py").read_text())
    return subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)


def test_pins_replace_earlier_ones_and_leave_the_secrets(tmp_path: Path) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    (tmp_path / ".env").write_text("TIDAL_AUTH_TOKEN=secret\nTIDAL_REDIS_IMAGE=redis:7@sha256:old\n")
    done = pin(tmp_path, fake_docker(tmp_path / "bin", f"echo {digest}"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".env").read_text().splitlines() == [
        "TIDAL_AUTH_TOKEN=secret",
        f"TIDAL_PYTHON_IMAGE=python:3.11-slim@{digest}",
        f"TIDAL_POSTGRES_IMAGE=postgres:17@{digest}",
        f"TIDAL_REDIS_IMAGE=redis:7@{digest}",
    ]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_a_registry_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TIDAL_AUTH_TOKEN=secret\n")
    done = pin(tmp_path, fake_docker(tmp_path / "bin", "echo 'no such host' >&2; exit 1"))
    assert done.returncode == 1 and done.stderr == "the digest of python:3.11-slim is unknown: no such host\n"
    assert (tmp_path / ".env").read_text() == "TIDAL_AUTH_TOKEN=secret\n"


def test_every_pinned_image_is_one_that_compose_uses() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from pin_images import IMAGES
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    text = (ROOT / "docker-compose.yml").read_text()
    assert dict(re.findall(r"\$\{(TIDAL_\w+_IMAGE):-([^}]+)\}", text)) == IMAGES
