"""Which environment variables are read or reported as mistakes, and how passwords are inserted into URLs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from common.config import Settings, get_settings
from common.config.environment import INTERNAL_VARIABLES, OTHER_VARIABLES, PREFIX, WARNED_NAMES, warn_of_unknown
from common.config.settings import read_settings, variables
from common.errors import ConfigError
from tests.paths import ROOT

ODD = "p@ss/w:o%r#d?&=+ é'\"\\$"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Remove Tidal's environment variables, all `.env` files except that of the test, and cached settings."""
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in ("HOST", "PORT", "REDIS_URL", "EXPERIMENTS_DIR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_host_of_the_shell_is_never_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    Path(".env").write_text("HOST=0.0.0.0\n")
    assert read_settings().host == "127.0.0.1"
    monkeypatch.setenv("TIDAL_HOST", "0.0.0.0")
    assert read_settings().host == "0.0.0.0"


@pytest.mark.parametrize(
    ("name", "field", "bare", "ours"),
    [
        ("PORT", "port", "1111", "2222"),
        ("REDIS_URL", "redis_url", "redis://bare:1/0", "redis://ours:2/0"),
        ("EXPERIMENTS_DIR", "experiments_dir", "/bare", "/ours"),
    ],
)
def test_names_without_prefix_count_only_where_ours_is_unset(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str, bare: str, ours: str
) -> None:
    def found() -> str:
        value: Any = getattr(read_settings(), field)
        return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)

    default = found()
    Path(".env").write_text(f"{name}={bare}\n")
    assert found() == bare
    Path(".env").write_text(f"TIDAL_{name}={ours}\n")
    assert found() == ours
    monkeypatch.setenv(name, bare)
    assert found() == ours, ".env names ours, so the shell's bare name does not count"
    Path(".env").unlink()
    assert found() == bare != default
    monkeypatch.setenv(f"TIDAL_{name}", ours)
    assert found() == ours


def test_what_was_named_by_a_bare_name_counts_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "redis_url" not in read_settings().model_fields_set
    monkeypatch.setenv("REDIS_URL", "redis://bare:1/0")
    assert "redis_url" in read_settings().model_fields_set


def test_an_empty_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  "):
        monkeypatch.setenv("TIDAL_ROOT_PATH", value)
        with pytest.raises(ConfigError, match="TIDAL_ROOT_PATH: empty in the environment; set a value"):
            get_settings()
    monkeypatch.delenv("TIDAL_ROOT_PATH")
    Path(".env").write_text("TIDAL_AUTH_TOKEN=\n")
    with pytest.raises(ConfigError, match=r"TIDAL_AUTH_TOKEN: empty in \.env"):
        get_settings()


def test_a_wrong_value_names_the_variable_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_PORT", "http")
    monkeypatch.setenv("TIDAL_LEASE_SECONDS", "inf")
    monkeypatch.setenv("TIDAL_STOP_BUDGET", "-1")
    with pytest.raises(ConfigError) as caught:
        get_settings()
    assert "TIDAL_PORT: " in caught.value.message and "'http'" in caught.value.message
    assert "TIDAL_LEASE_SECONDS: Input should be a finite number" in caught.value.message
    assert "TIDAL_STOP_BUDGET_SECONDS: " in caught.value.message


def test_the_documented_name_of_the_stop_budget_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_STOP_BUDGET_SECONDS", "7")
    assert read_settings().stop_budget_seconds == 7


def test_a_mistyped_name_is_one_warning_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(WARNED_NAMES, raising=False)
    monkeypatch.setenv("TIDAL_DATABSE_URL", "x")
    Path(".env").write_text("TIDAL_AUTH_TOKN=x\n")
    try:
        with caplog.at_level(logging.WARNING):
            get_settings()
            get_settings()
            get_settings.cache_clear()
            get_settings()  # simulates a child process, which inherits the environment
        assert [record.getMessage() for record in caplog.records] == [
            "TIDAL_AUTH_TOKN is set, but Tidal does not read it; did you mean TIDAL_AUTH_TOKEN?",
            "TIDAL_DATABSE_URL is set, but Tidal does not read it; did you mean TIDAL_DATABASE_URL?",
        ]
    finally:
        os.environ.pop(WARNED_NAMES, None)


def test_the_former_name_of_a_variable_counts_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(WARNED_NAMES, raising=False)
    monkeypatch.setenv("TIDAL_WISH_POLL_SECONDS", "7")
    try:
        with caplog.at_level(logging.WARNING):
            assert get_settings().desired_state_poll_seconds == 7
            get_settings.cache_clear()
            get_settings()  # simulates a child process, which inherits the environment
        assert [record.getMessage() for record in caplog.records] == [
            "TIDAL_WISH_POLL_SECONDS has been renamed to TIDAL_DESIRED_STATE_POLL_SECONDS; the old name still works, "
            "please use the new one"
        ]
    finally:
        os.environ.pop(WARNED_NAMES, None)
    monkeypatch.setenv("TIDAL_DESIRED_STATE_POLL_SECONDS", "3")
    assert read_settings().desired_state_poll_seconds == 3


def test_a_former_name_in_the_env_file_counts_too(caplog: pytest.LogCaptureFixture) -> None:
    Path(".env").write_text("TIDAL_WISH_POLL_SECONDS=7\n")
    try:
        with caplog.at_level(logging.WARNING):
            assert get_settings().desired_state_poll_seconds == 7
        assert "TIDAL_WISH_POLL_SECONDS has been renamed" in caplog.text
    finally:
        os.environ.pop(WARNED_NAMES, None)


def test_a_warning_goes_to_standard_error_before_logs_are_set_up() -> None:
    code = "from common.config import get_settings; get_settings(); print('done')"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TIDAL_LEASE_SECOND": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("done\n", 0)
    assert ended.stderr == "TIDAL_LEASE_SECOND is set, but Tidal does not read it; did you mean TIDAL_LEASE_SECONDS?\n"


def test_every_name_that_the_code_reads_is_known(caplog: pytest.LogCaptureFixture) -> None:
    import re

    known = variables() | OTHER_VARIABLES.keys() | INTERNAL_VARIABLES
    read = set()
    for folder in ("common", "services", "tidal_client", "scripts", "bench", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(r"""(?:environ(?:\.get)?|getenv)[\[(]["'](TIDAL_\w+)""", path.read_text()))
    for path in (ROOT / "docker-compose.yml", ROOT / ".env.example"):
        read |= set(re.findall(r"TIDAL_[A-Z_]*[A-Z]", path.read_text()))
    assert len(read) > 30
    assert {name for name in read if not name.startswith("TIDAL_TEST_")} <= known
    environ = dict.fromkeys(known - {WARNED_NAMES}, "x")
    warn_of_unknown(variables(), environ)
    assert not caplog.records and WARNED_NAMES not in environ


@pytest.mark.parametrize("password", [ODD, "plain", "%40", "a b", "@", "/"])
def test_a_password_of_any_characters_goes_into_the_url_quoted(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("TIDAL_DATABASE_URL", "postgresql+psycopg://tidal@postgres:5432/tidal?sslmode=disable")
    monkeypatch.setenv("TIDAL_DATABASE_URL_PASSWORD", password)
    monkeypatch.setenv("TIDAL_REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("TIDAL_REDIS_URL_PASSWORD", password)
    settings = read_settings()
    url = make_url(settings.database_url.get_secret_value())
    assert (url.username, url.password, url.host, url.port) == ("tidal", password, "postgres", 5432)
    assert url.query == {"sslmode": "disable"}
    import redis
    from kombu.utils.url import url_to_parts

    pool = redis.ConnectionPool.from_url(settings.redis_url.get_secret_value())
    assert pool.connection_kwargs["password"] == password
    assert url_to_parts(settings.redis_url.get_secret_value()).password == password
    if password == ODD:
        assert password not in repr(settings)


def test_a_url_and_its_password_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_REDIS_URL_PASSWORD", "p@ss")
    with pytest.raises(ConfigError, match="TIDAL_REDIS_URL_PASSWORD is set but TIDAL_REDIS_URL is not; set both"):
        read_settings()
    monkeypatch.setenv("TIDAL_REDIS_URL", "redis://:p%40ss@h:1/0")  # what a child gets from its parent process
    assert read_settings().redis_url.get_secret_value() == "redis://:p%40ss@h:1/0"
    monkeypatch.setenv("TIDAL_REDIS_URL", "redis://:other@h:1/0")
    with pytest.raises(
        ConfigError, match="TIDAL_REDIS_URL contains a password that differs from TIDAL_REDIS_URL_PASSWORD"
    ) as e:
        read_settings()
    assert "other@" not in str(e.value) and "p@ss" not in str(e.value)


def test_settings_built_by_a_test_take_no_password_from_elsewhere() -> None:
    assert Settings(_env_file=None, database_url="postgresql://u:p@h/d").database_url.get_secret_value() == (
        "postgresql://u:p@h/d"
    )
