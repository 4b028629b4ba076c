"""The engine host replaces an engine process that has ended, and every request gets a reply."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from common.config import Settings
from common.config.child_environment import SECRET_VARIABLES
from common.redis import keys
from common.redis.generation_events import read_entry
from services.generator.engine_child import engine_settings
from services.generator.engine_host import EngineHost


@pytest.fixture
def host(settings: Settings) -> Iterator[EngineHost]:
    url = settings.redis_url.get_secret_value()
    host = EngineHost(settings, command=(sys.executable, "-m", "tests.integration.generator.fake_engine", url))
    assert host.ready.wait(30)
    yield host
    host.close()


def ask(host: EngineHost, client: redis.Redis, request_id: str) -> None:
    client.set(keys.generate_request(request_id), "{}", ex=30)
    assert host.hand_over(request_id)


def answer(client: redis.Redis, request_id: str) -> tuple[str, dict[str, Any]]:
    """Wait for the first event of the reply and return its name and data."""
    [[_, [[_, fields]]]] = client.xread({keys.generate_stream(request_id): "0"}, count=1, block=9000)
    [event] = read_entry(fields)
    return event.event, json.loads(event.data)


def test_a_request_is_answered(host: EngineHost, redis_client: redis.Redis) -> None:
    ask(host, redis_client, "one")
    event, data = answer(redis_client, "one")
    assert (event, data["text"], data["pid"]) == ("done", "one", host.pid)


def test_the_engine_gets_its_settings_and_no_secret(
    settings: Settings, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRET_VARIABLES:
        monkeypatch.setenv(name, "secret")
    mine = settings.model_copy(update={"generator_device": "cpu", "generator_models_mb": 7})
    command = (sys.executable, "-m", "tests.integration.generator.fake_engine", settings.redis_url.get_secret_value())
    host = EngineHost(mine, command=command)
    ask(host, redis_client, "one")
    environment = answer(redis_client, "one")[1]["environment"]
    host.close()
    assert SECRET_VARIABLES & set(environment) == {"TIDAL_REDIS_URL"}
    assert "secret" not in environment.values()
    (tmp_path / ".env").write_text("TIDAL_AUTH_TOKEN=secret\nTIDAL_GENERATOR_MODELS_MB=9\n")
    monkeypatch.chdir(tmp_path)
    for name in SECRET_VARIABLES:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = engine_settings()
    assert (seen.auth_token, seen.generator_models_mb, seen.generator_device) == (None, 7, "cpu")
    assert seen.redis_url == settings.redis_url
    assert seen.experiments_dir == settings.experiments_dir


def test_after_a_crash_the_running_request_gets_an_error_and_the_others_a_new_child(
    host: EngineHost, redis_client: redis.Redis
) -> None:
    before = host.pid
    for name in ("crash", "after-1", "after-2"):
        ask(host, redis_client, name)
    event, data = answer(redis_client, "crash")
    assert (event, data["code"], data["status"]) == ("error", "generator_restarted", 503)
    for name in ("after-1", "after-2"):
        event, data = answer(redis_client, name)
        assert (event, data["text"]) == ("done", name)
        assert data["pid"] != before
    assert host.restarts == 1


def test_a_killed_child_is_replaced(host: EngineHost, redis_client: redis.Redis) -> None:
    assert host.pid is not None
    psutil.Process(host.pid).kill()
    ask(host, redis_client, "next")
    assert answer(redis_client, "next")[0] == "done"


def test_closing_answers_the_remaining_requests_and_leaves_no_process(
    settings: Settings, redis_client: redis.Redis
) -> None:
    url = settings.redis_url.get_secret_value()
    host = EngineHost(settings, command=(sys.executable, "-m", "tests.integration.generator.fake_engine", url))
    assert host.ready.wait(30)
    # One slot stays free, because a request for the last slot would block this thread.
    for number in range(settings.generator_slots - 1):
        ask(host, redis_client, f"hang-{number}")
    assert host.pid is not None
    child = psutil.Process(host.pid)
    host.close()
    assert psutil.wait_procs([child], timeout=5)[1] == []
    assert answer(redis_client, f"hang-{settings.generator_slots - 2}")[0] == "error"
    assert not host.hand_over("late")


def test_two_generators_share_requests_for_many_sequences(settings: Settings, redis_client: redis.Redis) -> None:
    """With six slots, each host takes two requests of three sequences each, and a third request waits.

    The hosts share the requests without their engine processes, which end at once in this test.
    """
    mine = settings.model_copy(update={"generator_slots": 6})
    hosts = [EngineHost(mine, command=("false",)) for _ in range(2)]
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(6):
        redis_client.set(keys.generate_request(f"hang-{number}"), "{}", ex=30)
        waiting.put(f"hang-{number}")
    full = threading.Barrier(3)

    def work(host: EngineHost) -> None:
        """Hand over two requests, one after the other, as the Celery worker does."""
        host.hand_over(waiting.get(), 3)
        full.wait(30)
        host.hand_over(waiting.get(), 3)

    threads = [threading.Thread(target=work, args=[host], daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    full.wait(30)
    threads[0].join(1.0)
    assert [host.waiting for host in hosts] == [2, 2]
    assert [thread.is_alive() for thread in threads] == [True, True], "they wait for room"
    assert waiting.qsize() == 2
    for host in hosts:
        host.begin_shutdown()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(EngineHost.close, hosts))
    for thread in threads:
        thread.join(5)


@pytest.mark.parametrize("app", ["services.generator.tasks", "services.worker.tasks"])
def test_the_celery_process_never_loads_torch(app: str) -> None:
    code = f"import sys, {app}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
