"""`Client()` finds the server and the token as the command line does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from dotenv import dotenv_values

from services.cli.connection import connect
from tidal_client import Client, LocalInstance, Server, find_server
from tidal_client.local_instance import STATE_FILE
from tidal_client.server import read_dotenv

VARIABLES = ("TIDAL_URL", "TIDAL_AUTH_TOKEN", "TIDAL_HOME", "TIDAL_API_PORT", "TIDAL_PORT", "PORT")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_stack(folder: Path, pid: int) -> None:
    """Write the state file of a stack whose supervisor is the process `pid`."""
    started = psutil.Process(pid).create_time() if psutil.pid_exists(pid) else time.time()
    names = ("flower_url", "flower_password", "database_url", "redis_url", "experiments_dir", "data_dir", "logs_dir")
    rest = dict.fromkeys(names, "")
    folder.mkdir()
    instance = LocalInstance(pid, started, "ready", str(folder), "http://127.0.0.1:9", "local-token", **rest)
    (folder / STATE_FILE).write_text(instance.to_json())


def test_without_anything_it_is_port_4400_without_a_token() -> None:
    assert find_server() == Server("http://127.0.0.1:4400", None)


def test_the_running_local_stack_comes_first_and_an_ended_one_is_ignored(empty_folder: Path) -> None:
    start_stack(empty_folder / ".tidal", os.getpid())
    assert find_server() == Server("http://127.0.0.1:9", "local-token")
    assert find_server(token="mine").token == "mine"
    (empty_folder / ".tidal").rename(empty_folder / "ended")
    start_stack(empty_folder / ".tidal", 2**22 + 1)  # no process has this id
    assert find_server().url == "http://127.0.0.1:4400"


def test_tokens_of_this_folder_are_never_sent_to_a_given_url(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_stack(empty_folder / ".tidal", os.getpid())
    (empty_folder / ".env").write_text("TIDAL_AUTH_TOKEN=from-the-file\n")
    assert find_server("http://other:1") == Server("http://other:1", None)
    monkeypatch.setenv("TIDAL_URL", "http://other:2/")
    assert find_server() == Server("http://other:2/", None)
    monkeypatch.setenv("TIDAL_AUTH_TOKEN", "exported")
    assert find_server() == Server("http://other:2/", "exported")


def test_the_file_env_has_the_port_and_the_token_of_a_deployment(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("TIDAL_AUTH_TOKEN=from-the-file\nTIDAL_API_PORT=5005\n")
    assert find_server() == Server("http://127.0.0.1:5005", "from-the-file")
    monkeypatch.setenv("TIDAL_API_PORT", "6006")
    assert find_server().url == "http://127.0.0.1:6006"


def test_the_file_env_is_read_as_the_server_reads_it(empty_folder: Path) -> None:
    text = """# TIDAL_AUTH_TOKEN=commented out
A=plain value
export B=exported
 C = 'single # quoted'
D="double quoted"   # comment
E=with=equals # comment
F=
G=a#b
no line of the form
"""
    (empty_folder / ".env").write_text(text)
    expected = {name: value for name, value in dotenv_values(empty_folder / ".env").items() if value is not None}
    assert read_dotenv(empty_folder / ".env") == expected
    assert read_dotenv(empty_folder / "none") == {}


def test_the_clients_and_the_command_line_use_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_URL", "http://other:2/")
    monkeypatch.setenv("TIDAL_AUTH_TOKEN", "exported")
    with Client() as found, Client("http://third") as given, connect(None, None) as commands:
        for client in (found, commands):
            assert (client.url, client._http.headers["Authorization"]) == ("http://other:2", "Bearer exported")
        assert (given.url, given._http.headers.get("Authorization")) == ("http://third", None)
