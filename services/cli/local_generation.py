"""Generates text from a file on this machine without a service: a child process loads torch and sends JSON lines.

`checkpoint_source` finds the file that a command names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from common.errors import NotFoundError, UnavailableError
from services.cli.checkpoint_source import local_store
from services.cli.processes import computing_environment
from tidal_client import StreamEvent
from tidal_client.problems import to_error
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR


def events(checkpoint: Path, policy: Path | None, prompt: str, fields: dict[str, Any]) -> Generator[StreamEvent]:
    """Yield `token` events and then `done`, like `Client.generate_stream`.

    Closing the generator kills the child process.

    Raises the TidalError that the child reports, and UnavailableError if the child ends without `done`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    request = {"checkpoint": str(checkpoint), "policy": str(policy) if policy else None, "prompt": prompt, **given}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.generator.terminal"],
        env=computing_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        for line in process.stdout:
            message = json.loads(line)
            if message["event"] == EVENT_ERROR:
                problem = message["data"]
                raise to_error(int(problem["status"]), {"detail": problem["message"], "code": problem["code"]})
            yield StreamEvent(message["event"], message["data"])
            if message["event"] == EVENT_DONE:
                return
        raise UnavailableError(
            f"the generation ended before the text was complete (exit status {process.wait()}); "
            "its output above shows the reason"
        )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def newest_checkpoint(*, policy: bool) -> Path:
    """Return the newest final controller in the local store if `policy`, else the newest final language model.

    Raises NotFoundError.
    """
    store = local_store()
    for experiment in store.experiments():
        for file in store.checkpoint_files(experiment):
            if file.kind == "final" and file.policy == policy:
                return store.resolve(f"{experiment}/final")
    what, option = ("controller", "--policy") if policy else ("model", "--checkpoint")
    raise NotFoundError(f"there is no finished {what} in {store.root}; give a file with {option}")
