"""`tidal doctor` shows what is missing and how to install it; it changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.config import get_settings
from services.cli.commands import doctor
from services.cli.main import app


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TIDAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_this_machine_has_what_the_tests_need_and_nothing_is_created(own_folder: Path) -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    needed = {"Python", "PyTorch", "PostgreSQL", "Valkey", "Disk"}
    assert {name for name in needed if findings[name].state == "ok"} == needed
    assert findings["Hub"].state == "warning"
    assert "builtin:stories" in findings["Hub"].fix
    assert not list(own_folder.iterdir())


def test_a_missing_server_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALKEY_BIN", "/nowhere/valkey-server")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "VALKEY_BIN is /nowhere/valkey-server" in " ".join(shown.output.split())


def test_a_taken_port_is_a_warning_that_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        monkeypatch.setenv("TIDAL_PORT", str(port))
        (finding,) = doctor.ports()
    assert finding.state == "warning"
    assert str(port) in finding.detail
    assert "--port" in finding.fix


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    finding = doctor.torch()
    assert (finding.state, finding.detail) == ("missing", "not installed: torch")
    assert "make install" in finding.fix


def test_files_that_others_can_read_are_a_warning_with_a_fix(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_folder)
    assert doctor.private().state == "ok"
    (own_folder / ".env").write_text("")
    (own_folder / ".env").chmod(0o644)
    assert doctor.private().fix == "chmod 600 .env"
    (own_folder / "home").mkdir()
    (own_folder / "home").chmod(0o755)
    assert "`tidal up` corrects the permissions" in doctor.private().fix
    monkeypatch.setenv("TIDAL_UMASK", "022")
    get_settings.cache_clear()
    assert "TIDAL_UMASK is 022" in doctor.private().detail
