"""`/metrics` contains all documented metrics, and the alert rules use only existing metrics."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from common.metrics import MetricsWriter
from common.metrics import writer as writer_module
from common.redis import keys
from common.redis.keys import HEALTH
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.prometheus_samples import samples
from tests.paths import ROOT

RULES = ROOT / "docs" / "alerts.yml"
WORDS = {"and", "on", "or", "unless", "by", "sum", "rate", "increase", "time", "job", "status", "state", "up"}
"""Words in alert expressions that are not metrics of Tidal: PromQL keywords, labels, metrics of Prometheus itself."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_the_metrics_equal_the_state_of_the_services(api: Api, redis_client: redis.Redis) -> None:
    api.submit()
    redis_client.hset(HEALTH, mapping={"sweptAt": "2026-01-01T00:00:00+00:00"})
    found = samples(api)
    assert found["tidal_jobs"][("pending",)] == 1
    assert found["tidal_leases"] == {("valid",): 0, ("expired",): 0}
    assert 0 < found["tidal_queue_age_seconds"][()] < 60
    assert found["tidal_reaper_last_success_timestamp_seconds"][()] == 1767225600
    assert found["tidal_redis_memory_bytes"][()] > 100_000
    assert found["tidal_disk_free_bytes"][()] < found["tidal_disk_bytes"][()]
    assert found["process_resident_memory_bytes"][()] > 10_000_000
    assert found["tidal_metrics_dropped_total"][()] == 0
    assert "tidal_tokens_per_second" not in found  # no trainer runs


def test_a_running_training_shows_its_speed(
    api: Api, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = api.submit()["experimentId"]
    monkeypatch.setattr("services.api.operations.prometheus_metrics.ACTIVE", ("pending",))
    for step, values in (
        (1, {"Tokens/Second": 10.0}),
        (2, {"Tokens/Second": 2000.0, "Iterations/Second": 4.0}),
        (3, {}),
    ):
        point = {"step": step, "time": "", "attempt": 1, "values": values}
        data = json.dumps({"points": [point]})
        redis_client.xadd(keys.experiment_stream(experiment), {"event": "metrics", "data": data})
    redis_client.xadd(keys.experiment_stream(experiment), {"event": "log-lines", "data": "{}"})
    found = samples(api)
    assert found["tidal_tokens_per_second"] == {(experiment,): 2000.0}
    assert found["tidal_step_seconds"] == {(experiment,): 0.25}


def test_points_dropped_on_a_full_disk_are_counted(
    api: Api, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10)
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "metrics").write_text("in the way")
    writer = MetricsWriter(folder, redis_url, "e1", "j1", 1, flush_seconds=60)
    for step in range(25):
        writer.add("metrics", step, {"loss": 1.0})
    writer.close()
    assert samples(api)["tidal_metrics_dropped_total"][()] == 25


def test_an_unavailable_service_affects_only_its_own_metrics(serve: RunApi) -> None:
    with serve(redis_url="redis://127.0.0.1:1/0") as api:
        started = time.monotonic()
        found = samples(api)
        assert time.monotonic() - started < 10
        assert found["tidal_redis_up"][()] == 0
        assert found["tidal_database_up"][()] == 1
        assert found["tidal_disk_bytes"][()] > 0
    with serve(database_url="postgresql+psycopg://tidal@127.0.0.1:1/tidal") as api:
        found = samples(api)
        assert found["tidal_database_up"][()] == 0
        assert found["tidal_redis_up"][()] == 1


def test_every_alert_rule_is_complete_and_uses_exported_metrics(api: Api, redis_client: redis.Redis) -> None:
    api.submit()
    exported = set(samples(api))
    seen = set()
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["action"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        expression = re.sub(r'"[^"]*"|\[[^\]]*\]', "", rule["expr"])
        assert expression.count("(") == expression.count(")")
        named = set(re.findall(r"[a-z][a-z_]+", expression)) - WORDS
        assert named <= exported, f"{rule['alert']}: {named - exported} is not exported"
        seen |= named
    documented = {"tidal_jobs", "tidal_queue_age_seconds", "tidal_metrics_dropped_total", "tidal_redis_memory_bytes"}
    assert documented | {"tidal_reaper_last_success_timestamp_seconds", "tidal_disk_free_bytes"} <= seen
    assert len({rule["alert"] for rule in rules()}) == len(rules())
