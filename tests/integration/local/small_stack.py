"""Runs the real supervisor with small programs in place of the services.

Arguments: FOLDER PORT [BEHAVIOUR]. Behaviours: `steady`; `stubborn` (the worker ignores SIGTERM); `crashing` (the
worker ends when the file FOLDER/crash appears); `broken` (the api ends at once with a message).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from common.config import Settings
from common.errors import TidalError
from services.local.child import ChildSpec
from services.local.stack import Addresses, ServerUrls, StackSecrets
from services.local.supervisor import StackSupervisor

API = """
import http.server, os
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["TIDAL_PORT"])), Ready).serve_forever()
"""
WORKER = """
import pathlib, signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("worker is up", flush=True)
crash = pathlib.Path(sys.argv[2]) / "crash"
while True:
    if crash.exists():
        crash.unlink()
        sys.exit("worker falls over")
    time.sleep(0.02)
"""


def main() -> int:
    folder, port, behaviour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def plan(
        _: Settings, addresses: Addresses, __: StackSecrets, ___: ServerUrls, environment: Mapping[str, str]
    ) -> list[ChildSpec]:
        api = "import sys; sys.exit('no module named tea')" if behaviour == "broken" else API
        return [
            ChildSpec("api", ("-c", api), environment, port=addresses.port),
            ChildSpec("worker", ("-c", WORKER, behaviour, str(folder)), environment, stop_seconds=1.0),
        ]

    console = Console(highlight=False, width=200)
    migrate = ("-c", "print('tables are up to date')")
    try:
        return StackSupervisor(
            folder, Settings(_env_file=None), port=port, console=console, plan=plan, migrate=migrate
        ).run()
    except TidalError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
