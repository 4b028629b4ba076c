"""`tidal up`, `tidal down` and `tidal status`: start, stop and show the local stack of `python -m services.local`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psutil
import typer

from common.config import get_settings
from common.errors import UnavailableError
from services.cli.output import age, err, format_size, out, print_json, status_text, table
from services.cli.processes import last_lines, stack_environment
from tidal_client import LocalInstance, instance_folder, read_instance
from tidal_client.local_instance import read_state_file

START_SECONDS = 150.0
"""Longest wait in seconds until the stack is ready. It must be longer than the time that the supervisor waits for its
processes."""

Port = Annotated[int | None, typer.Option("--port", help="Port of the API; 0 for any free port. [default: 4400]")]
FlowerPort = Annotated[
    int | None,
    typer.Option("--flower-port", help="Port of Flower; 0 for any free port. [default: 5555, or any free port]"),
]


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run the stack in the background, and return when it is ready.")
    ] = False,
    port: Port = None,
    flower_port: FlowerPort = None,
) -> None:
    """Start PostgreSQL, Valkey, the API, the workers and Flower on this machine.

    Without --detach, the command prints the logs of all processes, and Ctrl-C stops the processes. Data, logs and
    secrets are kept in `.tidal` (or TIDAL_HOME). If the stack is already running, the command only prints its
    addresses.
    """
    running = read_instance()
    if running is not None:
        err.print(f"The stack is already running (since {_since(running)}).")
        print_addresses(running)
        return
    arguments = up_arguments(port, flower_port, quiet=detach)
    if detach:
        print_addresses(start_detached(arguments))
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *arguments], stack_environment())


def down() -> None:
    """Stop the local stack of this folder.

    This also stops a stack that was started in another terminal. Running jobs write a checkpoint and continue after the
    next `tidal up`.
    """
    folder = instance_folder()
    running = read_instance(folder)
    known = read_state_file(folder)
    with err.status("Stopping …"):
        ended = subprocess.run([sys.executable, "-m", "services.local", "down"], env=stack_environment())
    if ended.returncode:
        raise typer.Exit(ended.returncode)
    err.print("Stopped." if running or known else f"No stack is running in {folder}.", soft_wrap=True)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print the state as JSON, without secrets.")] = False,
) -> None:
    """Show the processes and addresses of the local stack.

    The exit status is 3 if the stack is not running.
    """
    folder = instance_folder()
    instance = read_instance(folder)
    if instance is None:
        left = read_state_file(folder)
        if left is not None:
            err.print(
                "The supervisor of the stack was killed. `tidal up` starts the stack again; `tidal down` stops the "
                "remaining servers."
            )
        else:
            err.print(f"No stack is running in {folder}. Start one with `tidal up`.", soft_wrap=True)
        raise typer.Exit(3)
    if as_json:
        secret = {"token", "flower_password", "database_url", "redis_url"}
        values = {key: value for key, value in vars(instance).items() if key not in secret}
        print_json({**values, "processes": {name: vars(state) for name, state in instance.processes.items()}})
        return
    rows = table("process", "state", "pid>", "port>", "memory>", "restarts>")
    for name, state in instance.processes.items():
        memory = _memory(state.pid)
        rows.add_row(
            name, status_text(state.status), str(state.pid or ""), str(state.port or ""), memory, str(state.restarts)
        )
    out.print(f"{instance.status.capitalize()}, since {_since(instance)}.")
    out.print(rows)
    print_addresses(instance)


def print_addresses(instance: LocalInstance) -> None:
    """Print the addresses and secrets of the stack."""
    out.print(f"  Page    {instance.api_url}      dashboard; sign in with the token")
    out.print(f"  API     {instance.api_url}      docs: {instance.api_url}/docs")
    out.print(f"  Flower  {instance.flower_url}      user: tidal  password: {instance.flower_password}")
    out.print(f"  Token   {instance.token}")
    out.print(f"  Logs    {instance.logs_dir}", soft_wrap=True)


def up_arguments(
    port: int | None, flower_port: int | None, *, quiet: bool = False, with_parent: bool = False
) -> list[str]:
    """Return the arguments with which the Python interpreter runs the supervisor."""
    arguments = ["-m", "services.local", "up"]
    if port is not None:
        arguments += ["--port", str(port)]
    if flower_port is not None:
        arguments += ["--flower-port", str(flower_port)]
    if quiet:
        arguments.append("--quiet")
    return [*arguments, "--with-parent"] if with_parent else arguments


def port_to_use(port: int | None) -> int:
    """Return `port` if it is given, else the port in the settings.

    If the port in the settings is in use, return 0, which means any free port.
    """
    if port is not None:
        return port
    default = get_settings().port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", default))
        except OSError:
            return 0
    return default


def start_detached(arguments: list[str]) -> LocalInstance:
    """Start the supervisor in the background, and return when the stack is ready.

    Raises UnavailableError if the supervisor ends before the stack is ready, or if the stack is not ready in time.
    """
    process = launch(arguments)
    with err.status("Starting …"):
        return wait_until_ready(process)


def launch(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the supervisor in the background. Its output goes to `logs/up.log`."""
    with up_log().open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=stack_environment(),
        )


def wait_until_ready(process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> LocalInstance:
    """Wait until the stack is ready, and return it.

    Raises UnavailableError if `process` ends before the stack is ready, or if this takes longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        instance = read_instance()
        if instance is not None and instance.pid == process.pid and instance.status == "ready":
            return instance
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        reason = "\n".join(last_lines(up_log(), 15)).removeprefix("error: ")
        raise UnavailableError(reason or f"the stack ended with exit code {process.returncode}")
    raise UnavailableError(f"the stack is not ready after {seconds:g} s; see {up_log().parent}")


def up_log() -> Path:
    """Return the path of the log file of a supervisor that runs in the background."""
    folder = instance_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "up.log"


def _since(instance: LocalInstance) -> str:
    return age(datetime.fromtimestamp(instance.started, UTC)).removesuffix(" ago").replace("just now", "a moment")


def _memory(pid: int | None) -> str:
    """Return the resident memory of a process and its descendants as text; an empty string if there is no process."""
    if pid is None:
        return ""
    try:
        process = psutil.Process(pid)
        return format_size(sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))
    except psutil.NoSuchProcess:
        return ""
