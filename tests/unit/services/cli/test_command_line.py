"""The command line prints an error as one line, has help for every command, and does not import torch."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from common.config import Settings
from common.config.settings import RENAMED
from common.jobs.experiments import NO_COMMIT
from services.cli import main as command_line
from services.cli.commands.environment import environment_text
from tests.paths import ROOT

API_ONLY = {"TIDAL_ALLOWED_HOSTS", "TIDAL_ALLOWED_ORIGINS", "TIDAL_TRUSTED_PROXIES", "TIDAL_ROOT_PATH"}


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TIDAL_PORT": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_an_error_is_one_line_and_exit_1(tmp_path: Path) -> None:
    ended = run("jobs", "list", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == "error: no api replies at http://127.0.0.1:1; start one with `tidal up`\n"


def test_a_traceback_comes_only_when_asked_for(tmp_path: Path) -> None:
    assert "Traceback" in run("jobs", "list", cwd=tmp_path, TIDAL_DEBUG="1").stderr
    assert "Traceback" not in run("import", str(tmp_path / "nowhere"), cwd=tmp_path).stderr


def test_torch_is_never_loaded(tmp_path: Path) -> None:
    script = "import sys, services.cli.main, services.cli.import_directory; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment).returncode == 0


def commands(group: typer.Typer, *path: str) -> list[tuple[str, ...]]:
    found = [(*path, str(each.name or each.callback.__name__)) for each in group.registered_commands if each.callback]
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        found += commands(sub.typer_instance, *path, str(sub.name))
    return found


EVERY_COMMAND = commands(command_line.app)


def test_the_documented_commands_exist() -> None:
    documented = {
        ("demo",),
        ("up",),
        ("down",),
        ("status",),
        ("generate",),
        ("export",),
        ("import",),
        ("doctor",),
        ("env",),
    }
    jobs = [
        "submit",
        "list",
        "queue",
        "show",
        "watch",
        "logs",
        "samples",
        "signal",
        "pause",
        "resume",
        "complete",
        "stop",
        "cancel",
    ]
    more = {
        ("audit",),
        ("backup",),
        ("export",),
        ("restore",),
        ("import-config",),
        ("mcp",),
        ("metrics",),
        ("migrate-checkpoint",),
        ("train", "lm"),
        ("train", "rl"),
        ("db", "migrate"),
        ("db", "sweep"),
        ("db", "retention"),
        *(("analyze", name) for name in ("single", "batch", "sweep", "headroom", "list", "show", "delete")),
        *(("datasets", name) for name in ("upload", "list", "show", "delete")),
        *(("experiments", name) for name in ("list", "show", "compare", "rename", "delete")),
        *(("tokens", name) for name in ("create", "list", "revoke")),
        *(("reports", name) for name in ("list", "show", "generate", "export", "delete")),
    }
    assert documented | more | {("jobs", name) for name in jobs} == set(EVERY_COMMAND)


@pytest.mark.parametrize("path", EVERY_COMMAND, ids=" ".join)
def test_every_command_and_every_option_has_a_help_text(path: tuple[str, ...]) -> None:
    click = typer.main.get_command(command_line.app)
    for name in path:
        click = vars(click)["commands"][name]
    assert click.help
    silent = [p.name for p in click.params if p.name != "help" and not getattr(p, "help", None)]
    assert not silent
    shown = CliRunner().invoke(command_line.app, [*path, "--help"])
    assert shown.exit_code == 0


def test_env_writes_different_secrets_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    first = run("env", "--profile", "cpu", cwd=tmp_path, TIDAL_COMMIT="nogit")
    assert first.returncode == 0, first.stderr
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "COMPOSE_PROFILES=cpu" in text
    values = re.findall(r"^(TIDAL_\w+)=(\S+)$", text, re.MULTILINE)
    assert [name for name, _ in values] == [
        "TIDAL_AUTH_TOKEN",
        "TIDAL_POSTGRES_PASSWORD",
        "TIDAL_REDIS_PASSWORD",
        "TIDAL_FLOWER_PASSWORD",
    ]
    assert len({value for _, value in values}) == 4
    assert all(len(value) >= 24 and re.fullmatch(r"[A-Za-z0-9_-]+", value) for _, value in values)
    second = run("env", cwd=tmp_path)
    assert second.returncode == 1
    assert path.read_text() == text


def test_the_commit_reaches_the_images(tmp_path: Path) -> None:
    assert run("env", cwd=tmp_path, TIDAL_COMMIT="abc1234").returncode == 0
    assert "\nTIDAL_COMMIT=abc1234\n" in (tmp_path / ".env").read_text()
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    builds = [service["build"] for service in services.values() if "build" in service]
    assert builds and all(build["args"]["TIDAL_COMMIT"] == f"${{TIDAL_COMMIT:-{NO_COMMIT}}}" for build in builds)
    for build in builds:
        text = (ROOT / build.get("dockerfile", "Dockerfile")).read_text()
        assert f"ARG TIDAL_COMMIT={NO_COMMIT}\n" in text and "ENV TIDAL_COMMIT=${TIDAL_COMMIT}" in text


def test_env_names_what_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    written = set(re.findall(r"^(\w+)=", environment_text("cpu"), re.MULTILINE))
    assert asked <= written


def test_timers_and_limits_reach_every_process_of_compose_and_secrets_only_their_own() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name: service["environment"] for name, service in services.items() if name not in ("postgres", "redis")}
    words = ("SECONDS", "DAYS", "CONCURRENCY", "MAX", "GENERATOR", "RATE", "LIMIT", "UMASK", "DISK", "REQUEST")
    tunable = {f"TIDAL_{name.upper()}" for name in Settings.model_fields if set(words) & set(name.upper().split("_"))}
    for environment in ours.values():
        passed = {name for name, value in environment.items() if value is None and name not in API_ONLY}
        assert passed - RENAMED.keys() == tunable - {
            "TIDAL_STOP_BUDGET_SECONDS"
        }  # only the local stack uses this variable
        assert passed >= RENAMED.keys(), "the former name of a variable still reaches the containers"
    jobs, broker = ["api", "health", "worker", "worker-cpu"], ["generator", "generator-cpu", "flower"]
    for secret, owners in (
        ("TIDAL_AUTH_TOKEN", ["api"]),
        ("TIDAL_FLOWER_PASSWORD", ["flower"]),
        ("TIDAL_DATABASE_URL_PASSWORD", ["migrate", *jobs]),
        ("TIDAL_REDIS_URL_PASSWORD", [*jobs, *broker]),
    ):
        assert sorted(name for name, environment in ours.items() if secret in environment) == sorted(owners)
    assert not any("env_file" in service for service in services.values())


def test_status_without_a_stack_exits_with_3(tmp_path: Path) -> None:
    ended = run("status", cwd=tmp_path)
    assert ended.returncode == 3
    assert "Start one with `tidal up`" in ended.stderr
