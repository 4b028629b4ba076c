"""With an output encoding other than UTF-8, commands still print everything, and JSON and YAML remain valid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.config.yaml_text import parse_yaml
from common.streams import as_typed
from tests.paths import ROOT

NAME = "caf\u00e9 – \u201cна\u201d \U0001f408 \u2028"
ENCODINGS = ("ascii", "latin-1", "utf-8")
JOB = {
    "id": "job_1",
    "type": "lm-training",
    "status": "pending",
    "desiredState": "run",
    "experimentId": "exp",
    "name": NAME,
    "tags": [],
    "queue": "training",
    "progress": {},
    "signals": [],
    "createdAt": "2026-01-31T12:00:00Z",
    "updatedAt": "2026-01-31T12:00:00Z",
    "payload": {},
}
LINES = {"lines": [{"attempt": 1, "line": 1, "text": NAME}], "nextCursor": None, "complete": True}


class Handler(BaseHTTPRequestHandler):
    """Serves an api with one job whose name and log the tested encodings cannot represent completely."""

    def do_GET(self) -> None:
        body = LINES if "/logs" in self.path else JOB if "job_1" in self.path else {"jobs": [JOB], "nextCursor": None}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(*command: str, encoding: str, given: bytes = b"") -> bytes:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    ended = subprocess.run([sys.executable, *command], env=environ, capture_output=True, input=given)
    assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    assert b"Traceback" not in ended.stderr
    return ended.stdout


def shown(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "backslashreplace")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_commands_print_names_and_logs_to_their_end(url: str, encoding: str) -> None:
    logs = run("-m", "services.cli", "jobs", "logs", "job_1", "--url", url, encoding=encoding)
    assert shown("caf\u00e9", encoding) in logs and shown("\U0001f408", encoding) in logs
    listed = run("-m", "services.cli", "jobs", "list", "--json", "--url", url, encoding=encoding)
    assert json.loads(listed.decode(encoding))[0]["name"] == NAME


def test_a_table_is_printed_completely(url: str) -> None:
    table = run("-m", "services.cli", "jobs", "list", "--url", url, encoding="ascii")
    assert b"caf" in table and b"\\xe9" in table


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tokens_logs_and_entry_points_print_every_text(encoding: str) -> None:
    tokens = (
        "from common.streams import accept_any_text; accept_any_text()\n"
        "from services.cli.views.tokens import Color, TokenView\n"
        f"view = TokenView(Color.ALWAYS, 'p', 'fixed')\nfor text in {list(NAME)!a} + ['\\ud800', 'end']:\n"
        "    view.print_token({'text': text, 'modulation': 0.5})\n"
    )
    assert run("-c", tokens, encoding=encoding).count(b"end") == 1
    logs = (
        "from common.logging import configure, get_logger\nimport sys\nconfigure('test', json_lines=False)\n"
        f"get_logger('x').info({NAME!a})\nprint({NAME!a} + '\\ud800')\nprint('end')\n"
    )
    assert run("-c", logs, encoding=encoding).split()[-1] == b"end"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_converted_configuration_stays_yaml(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "old.yaml").write_text("DATASET: caf\u00e9.txt\nTORCH_COMPILE: no\n", encoding="utf-8")
    printed = run("-m", "services.cli", "import-config", str(tmp_path / "old.yaml"), encoding=encoding)
    values = parse_yaml(printed.decode(encoding))
    assert values["data"]["source"] == "caf\u00e9.txt"
    assert values["training"]["compile"] == "off"


def test_arguments_that_the_locale_could_not_decode_are_utf8() -> None:
    assert as_typed("caf\udcc3\udca9") == "caf\u00e9"
    assert as_typed("caf\u00e9") == "caf\u00e9"
    assert as_typed("\udcff") == "\udcff"
