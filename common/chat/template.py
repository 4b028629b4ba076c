"""Chat templates: where a model's template is, the default, and rendering in a child process.

    renderer = TemplateRenderer()
    text = renderer.render(template, messages)   # raises InvalidInputError

One child renders for all threads, one template after the other. It is started when it is first needed, and again after
it has been killed because a template took too long.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from common.errors import InvalidInputError, UnavailableError

TEMPLATE_FILE: Final = "chat_template.jinja"
"""Name of a model's template, in the folder of the checkpoint or of the experiment."""
MOST_TEMPLATE_BYTES: Final = 64 * 1024
RENDER_SECONDS: Final = 0.5
"""Seconds after which a template is ended."""
START_SECONDS: Final = 20.0
"""Seconds within which the child must be ready. It imports only jinja2, which takes a tenth of a second."""
DEFAULT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}Assistant:"
)
"""The template of models without one: a transcript with one line `Role: content` per message, and `Assistant:`."""
DEFAULT_STOP: Final = "\nUser:"
"""Where a reply ends with the default template: where the model begins to write the user's next message."""
ROOT: Final = Path(__file__).resolve().parent.parent.parent
_PASSED_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "SYSTEMROOT")


def find_template(checkpoint: Path, experiment: Path) -> Path | None:
    """Return the template of a checkpoint, which is a file or a folder in the folder `experiment`, or None."""
    folders = [checkpoint, experiment] if checkpoint.is_dir() else [experiment]
    return next((path for folder in folders if (path := folder / TEMPLATE_FILE).is_file()), None)


def read_template(path: Path) -> str:
    """Return the text of a template. Raises InvalidInputError if it is too long, or not a text that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_TEMPLATE_BYTES + 1)
        if len(content) > MOST_TEMPLATE_BYTES:
            raise ValueError(f"it has more than {MOST_TEMPLATE_BYTES:,} bytes")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _refused(f"the model's {TEMPLATE_FILE} cannot be read: {reason}") from None


class TemplateRenderer:
    """Renders templates in a child process. May be used by several threads."""

    def __init__(self, *, render_seconds: float = RENDER_SECONDS) -> None:
        self._render_seconds = render_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, template: str, messages: Sequence[dict[str, Any]]) -> str:
        """Return the text of a conversation.

        Raises InvalidInputError if the template is invalid, does something that the sandbox forbids, refuses the
        messages, takes longer than the limit, or needs too much memory or output. Raises UnavailableError if no child
        can be started.
        """
        request = json.dumps({"template": template, "messages": list(messages)}).encode() + b"\n"
        with self._lock:
            child = self._ready_child()
            assert child.stdin is not None
            try:
                child.stdin.write(request)
                child.stdin.flush()
                reply = self._line(child, self._render_seconds)
            except BrokenPipeError:
                reply = b""
            if not reply.endswith(b"\n"):
                ended = child.poll() is not None
                self._end_child()
                reason = "needs too much memory" if ended else f"takes longer than {self._render_seconds:g} s"
                raise _refused(f"the model's chat template {reason}")
        result = json.loads(reply)
        if "error" in result:
            raise _refused(str(result["error"]))
        return str(result["text"])

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end_child()

    def _ready_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end_child()
        environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
        command = [sys.executable, "-m", "common.chat.child"]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=ROOT,
            env=environment,
        )
        if self._line(self._child, START_SECONDS) != b"ready\n":
            self._end_child()
            raise UnavailableError("the process that renders chat templates did not start; try again")
        return self._child

    def _line(self, child: subprocess.Popen[bytes], seconds: float) -> bytes:
        """Return the next line of the child, or what arrived of it until the time is over or the child has ended."""
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(child.stdout, select.POLLIN)
        found = bytearray()
        while not found.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(1000 * left):
                break
            part = os.read(child.stdout.fileno(), 1 << 20)
            if not part:
                child.wait()
                break
            found += part
        return bytes(found)

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait()


def _refused(message: str) -> InvalidInputError:
    return InvalidInputError.at("messages", message)
