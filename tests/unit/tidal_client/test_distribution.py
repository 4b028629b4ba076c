"""`pip install ./tidal_client` installs a client that needs few packages and nothing else of Tidal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

LARGEST_INSTALLATION = 15
SOURCE = ROOT / "tidal_client"
HEAVY = {"celery", "sqlalchemy", "torch", "fastapi", "redis", "numpy", "pandas", "common", "services"}


def read(path: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources and unpack it; return the folder."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_the_wheel_contains_every_module_and_the_marker_of_types(installed: Path) -> None:
    sources = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")} | {"py.typed"}
    sources = {name for name in sources if not name.startswith("build/")}
    packed = {str(path.relative_to(installed / "tidal_client")) for path in (installed / "tidal_client").rglob("*.*")}
    assert packed == sources


def test_every_public_name_works_from_the_wheel_without_the_rest_of_tidal(installed: Path) -> None:
    script = f"""
import sys
sys.path[:0] = [{str(installed)!r}]
import tidal_client
assert tidal_client.__file__.startswith({str(installed)!r})
for name in tidal_client.__all__:
    getattr(tidal_client, name)
tidal_client.Client("http://127.0.0.1:9").close()
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=installed)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_it_has_the_version_and_the_requirements_of_tidal() -> None:
    whole, client = read(ROOT / "pyproject.toml"), read(SOURCE / "pyproject.toml")
    assert (client["version"], client["requires-python"]) == (whole["version"], whole["requires-python"])
    assert set(client["dependencies"]) <= set(whole["dependencies"])


def test_an_installation_has_at_most_fifteen_packages() -> None:
    waiting = [Requirement(text) for text in read(SOURCE / "pyproject.toml")["dependencies"]]
    found = {"tidal-client"}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in distribution(name).requires or ()]
    assert {"httpx", "pydantic", "psutil"} < found
    assert len(found) <= LARGEST_INSTALLATION, sorted(found)
