"""The api under a sub-path behind a real nginx with the configuration of docs/deploy.md: events are not delayed.

These tests use the installed nginx (`apt install nginx-light`) and are skipped without one.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import redis

from common.redis.keys import experiment_stream
from tests.integration.api.conftest import BEARER, RunApi, events_of
from tests.paths import ROOT

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
GUIDE = ROOT / "docs" / "deploy.md"
AROUND = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    gzip on;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx found; `apt install nginx-light` brings one")


class Nginx:
    """An nginx in front of `upstream`."""

    def __init__(self, folder: Path, upstream: str, *, prefix_removed: bool) -> None:
        assert NGINX is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        [location] = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        target = f"proxy_pass {upstream}{'/' if prefix_removed else ''};"
        location = location.replace("proxy_pass http://127.0.0.1:4400;", target)
        assert target in location
        folder.mkdir()
        (folder / "nginx.conf").write_text(AROUND.format(port=self.port, location=location))
        self._command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "error.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("nginx accepts no connections")

    def stop(self) -> None:
        """Stop nginx at once, even with open connections."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)


Behind = Callable[..., AbstractContextManager[tuple[httpx.Client, Nginx]]]


@pytest.fixture
def behind(serve: RunApi, tmp_path: Path) -> Behind:
    """Return a function that runs the api behind nginx at /tidal.

    Example: `with behind(prefix_removed=True) as (client, nginx):`.
    """

    @contextmanager
    def run(*, prefix_removed: bool = False) -> Iterator[tuple[httpx.Client, Nginx]]:
        with serve(root_path="/tidal", trusted_proxies="127.0.0.1") as api:
            nginx = Nginx(tmp_path / "nginx", api.url, prefix_removed=prefix_removed)
            try:
                base = f"http://127.0.0.1:{nginx.port}/tidal"
                with httpx.Client(base_url=base, headers=BEARER, timeout=20) as client:
                    yield client, nginx
            finally:
                nginx.stop()

    return run


def submit(client: httpx.Client) -> dict[str, str]:
    config = {"model": {"d_model": 16, "num_layers": 1, "num_heads": 2}, "data": {"source": "builtin:stories"}}
    reply = client.post("/api/jobs", json={"type": "lm-training", "config": config})
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/tidal/api/jobs/{reply.json()['id']}"
    return dict(reply.json())


@pytest.mark.parametrize("prefix_removed", [False, True])
def test_an_event_passes_the_proxy_while_the_stream_is_open(
    behind: Behind, redis_client: redis.Redis, prefix_removed: bool
) -> None:
    with behind(prefix_removed=prefix_removed) as (client, _):
        experiment = submit(client)["experimentId"]
        with events_of(client, f"/api/experiments/{experiment}/stream") as events:
            assert events.take(1)[0].name == "snapshot"
            # Send each event only after the client has received the previous one, which proves that nginx delays none.
            for number in range(5):
                data = json.dumps({"n": number})
                redis_client.xadd(experiment_stream(experiment), {"event": "metrics", "data": data})
                assert next(event.data["n"] for event in events if event.name == "metrics") == number


def test_a_stream_continues_after_a_restart_of_nginx_without_gap_or_duplicate(
    behind: Behind, redis_client: redis.Redis
) -> None:
    seen: list[int] = []
    with behind() as (client, nginx):
        experiment = submit(client)["experimentId"]
        path = f"/api/experiments/{experiment}/stream"
        with events_of(client, path) as events:
            cursor = events.take(1)[0].id
        for number in range(60):
            data = json.dumps({"n": number})
            redis_client.xadd(experiment_stream(experiment), {"event": "metrics", "data": data})
        while len(seen) < 60:
            before = len(seen)
            with suppress(httpx.TransportError), events_of(client, path, cursor) as events:
                for event in events:
                    cursor = event.id or cursor
                    if event.name == "metrics":
                        seen.append(event.data["n"])
                    if len(seen) == before + 20:
                        nginx.stop()
                        nginx.start()
                        break
    assert seen == list(range(60))


def test_pages_and_links_contain_the_sub_path(behind: Behind) -> None:
    with behind() as (client, _):
        assert client.get("/readyz").json()["ready"] is True
        servers = client.get("/openapi.json").json()["servers"]
        assert servers[0]["url"] == "/tidal"
        page = client.get("/docs")
        assert page.status_code == 200
        assert not re.findall(r'(?:src|href)="/(?!tidal/)[^"]', page.text), "a link that leaves the sub-path"
        problem = client.get("/api/jobs/none")
        assert (problem.status_code, problem.json()["code"]) == (404, "not_found")
