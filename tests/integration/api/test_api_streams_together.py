"""`GET /api/stream`: several streams on one connection."""

from __future__ import annotations

import json
from itertools import takewhile

import redis

from common.redis.keys import experiment_stream
from tests.integration.api.conftest import Api, events_of
from tests.integration.api.streams import add, key, path, shows

__all__ = ["key", "path"]


def test_several_streams_share_one_connection_and_each_event_follows_its_topic(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    first = path.split("/")[3]
    other = api.submit()["experimentId"]
    cursor = add(redis_client, key, 1)
    add(redis_client, key, 2)
    address = f"/api/stream?topic=jobs&topic=experiments/{first}@{cursor}&topic=experiments/{other}&topic=jobs/nosuch"
    found: dict[str, list[tuple[str, object]]] = {}
    with events_of(api.http, address) as events:
        topic = ""
        for event in events:
            if event.name == "topic":
                topic = event.data
                continue
            found.setdefault(topic, []).append((event.name, event.data))
            if len(found) == 4 and ("metrics", {"n": 2}) in found.get(f"experiments/{first}", []):
                break
        with events_of(api.http, "/api/stream?topic=jobs&topic=jobs/nosuch") as again:
            assert [event.name for event in again.take(4)] == ["topic", "error", "topic", "snapshot"]
        assert shows(api, "tidal_sse_clients 1.0")
        number = add(redis_client, experiment_stream(other), 7)
        last = [event for event in takewhile(lambda event: event.id != number, events) if event.name == "topic"]
        assert (last[-1].data if last else topic) == f"experiments/{other}"
    missing = found.pop("jobs/nosuch")
    assert [(name, data["status"]) for name, data in missing if isinstance(data, dict)] == [("error", 404)]
    assert found.pop(f"experiments/{first}") == [("metrics", {"n": 2})]
    assert {topic: topic_events[0][0] for topic, topic_events in found.items()} == dict.fromkeys(
        ["jobs", f"experiments/{other}"], "snapshot"
    )


def test_a_brief_topic_has_the_next_line_number_of_a_log_instead_of_its_lines(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    experiment = path.split("/")[3]
    lines = {"attempt": 2, "lines": [{"n": 40, "text": "one"}, {"n": 41, "text": "two"}]}
    redis_client.xadd(key, {"event": "log-lines", "data": json.dumps(lines)})
    last = add(redis_client, key, 1)
    complete, brief = f"experiments/{experiment}", f"experiments/{experiment}/brief"
    found: dict[str, list[tuple[str, object]]] = {complete: [], brief: []}
    with events_of(api.http, f"/api/stream?topic={complete}@0&topic={brief}@0") as events:
        topic, ends = "", 0
        for event in events:
            if event.name == "topic":
                topic = event.data
            elif event.name in ("log-lines", "metrics"):
                found[topic].append((event.name, event.data))
                ends += event.id == last
            if ends == 2:
                break
    assert found[complete] == [("log-lines", lines), ("metrics", {"n": 1})]
    assert found[brief] == [("log-lines", {"attempt": 2, "lines": [], "next": 42}), ("metrics", {"n": 1})]
    with events_of(api.http, path, since="0") as events:
        assert next(event.data for event in events if event.name == "log-lines") == lines
