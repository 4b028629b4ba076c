"""The outbox: all committed messages are published in the order of their ids, even if Redis or a relay fails."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from common.db import Outbox
from common.errors import UnavailableError
from common.jobs.outbox import prune, publish_after_commit, relay
from common.jobs.queue import complete_job
from common.jobs.signals import request_signal
from common.redis import keys
from common.redis.celery_settings import NOTIFY_TASK
from common.redis.publisher import RedisPublisher
from services.health.outbox_relay import OutboxRelay
from services.local.servers import free_port
from tests.integration.jobs.job_queue import JobQueue
from tests.integration.jobs.recorder import RecordingPublisher
from tidal_client.vocabulary import JobStatus, Signal

S = JobStatus


def waiting(session: Session) -> tuple[int, float]:
    """Return the number of unpublished rows, and the age of the oldest one in seconds."""
    age = func.extract("epoch", func.now() - func.min(Outbox.created_at))
    count, seconds = session.execute(select(func.count(), age).where(Outbox.published_at.is_(None))).one()
    return int(count), float(seconds or 0.0)


def documents(client: redis.Redis, stream: str) -> list[dict[str, Any]]:
    entries: Any = client.xrange(stream)
    assert {fields["event"] for _, fields in entries} <= {"job-update"}
    return [json.loads(fields["data"]) for _, fields in entries]


def test_a_job_life_reaches_its_three_streams_in_order(
    job_queue: JobQueue, engine: Engine, redis_url: str, redis_client: redis.Redis
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(complete_job, job_id, 1)
    publisher = RedisPublisher(redis_url)
    assert relay(engine, publisher) > 0
    assert relay(engine, publisher) == 0
    publisher.close()
    statuses = ["pending", "provisioning", "starting", "running", "completing", "completed"]
    for stream in (
        keys.JOBS_STREAM,
        keys.job_stream(job_id),
        keys.experiment_stream(job_queue.job(job_id).experiment_id),
    ):
        assert [document["status"] for document in documents(redis_client, stream)] == statuses
    last = documents(redis_client, keys.JOBS_STREAM)[-1]
    assert (last["id"], last["attempt"], last["event"]) == (job_id, 1, "completed")
    assert last["finishedAt"].endswith("Z")
    assert 0 < redis_client.ttl(keys.job_stream(job_id)) <= 3600
    assert redis_client.ttl(keys.JOBS_STREAM) == -1


def test_a_notification_is_a_celery_message_with_the_queue_name_only(
    job_queue: JobQueue, engine: Engine, redis_url: str, redis_client: redis.Redis
) -> None:
    job_queue.submit()
    publisher = RedisPublisher(redis_url)
    relay(engine, publisher)
    assert publisher.undelivered("training") == 1
    raw: Any = redis_client.lindex("training", 0)
    message = json.loads(raw)
    assert message["headers"]["task"] == NOTIFY_TASK
    assert message["headers"]["argsrepr"] == "['training']"
    publisher.close()


def test_a_repeated_row_adds_nothing(
    job_queue: JobQueue, engine: Engine, redis_url: str, redis_client: redis.Redis
) -> None:
    job_id = job_queue.submit()
    publisher = RedisPublisher(redis_url)
    relay(engine, publisher)
    # The relay lost its connection before it could commit.
    job_queue.sql("UPDATE outbox SET published_at = NULL WHERE kind = 'job-update'")
    assert relay(engine, publisher) == 1
    assert len(documents(redis_client, keys.job_stream(job_id))) == 1
    publisher.close()


def test_a_stop_request_is_published_on_its_channel(
    job_queue: JobQueue, engine: Engine, redis_url: str, redis_client: redis.Redis
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    publisher = RedisPublisher(redis_url)
    relay(engine, publisher)
    with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(keys.DESIRED_STATE_CHANNEL)
        channel.get_message(timeout=5)
        job_queue.do(request_signal, job_id, Signal.STOP)
        publish_after_commit(engine, publisher)
        message: Any = channel.get_message(timeout=5)
    assert message["data"] == job_id
    publisher.close()


def test_an_uncommitted_change_is_not_published(job_queue: JobQueue, engine: Engine) -> None:
    job_id = job_queue.bring(S.RUNNING)
    publisher = RecordingPublisher()
    relay(engine, publisher)
    publisher.forget()
    with job_queue.sessions() as session:
        request_signal(session, job_id, Signal.STOP)
        assert relay(engine, publisher) == 0
        session.rollback()
    assert relay(engine, publisher) == 0
    assert publisher.updates == []


def test_rows_behind_an_outage_are_published_later_and_once(job_queue: JobQueue, engine: Engine) -> None:
    for _ in range(5):
        job_queue.submit()
    publisher = RecordingPublisher()
    publisher.fail_after = 3
    with pytest.raises(UnavailableError):
        relay(engine, publisher)
    publisher.fail_after = None
    assert relay(engine, publisher) == 7
    ids = [row for row, _, _ in publisher.updates]
    assert ids == sorted(set(ids)) and len(ids) == 5
    assert len(publisher.notified) == 5


def test_a_row_that_cannot_be_published_does_not_block_later_ones(
    job_queue: JobQueue, engine: Engine, redis_url: str, redis_client: redis.Redis
) -> None:
    first, second, third = job_queue.submit(), job_queue.submit(), job_queue.submit()
    job_queue.sql("UPDATE outbox SET payload = '{}' WHERE job_id = :id", id=first)
    redis_client.set(keys.job_stream(second), "no stream")
    publisher = RedisPublisher(redis_url)
    assert relay(engine, publisher) == 6
    assert publisher.undelivered("training") == 3
    publisher.close()
    assert [document["id"] for document in documents(redis_client, keys.job_stream(third))] == [third]
    assert job_queue.do(waiting)[0] == 0


def test_a_request_succeeds_while_redis_is_unavailable(job_queue: JobQueue, engine: Engine) -> None:
    publisher = RedisPublisher(f"redis://127.0.0.1:{free_port()}/0", timeout=1)
    job_queue.submit()
    publish_after_commit(engine, publisher)
    rows, age = job_queue.do(waiting)
    assert rows == 2 and 0 <= age < 60
    publisher.close()


def test_of_two_relays_one_publishes_and_the_other_one_the_remaining_rows(job_queue: JobQueue, engine: Engine) -> None:
    job_queue.submit()
    entered, leave = threading.Event(), threading.Event()

    class Slow(RecordingPublisher):
        def notify_worker(self, queue: str) -> None:
            super().notify_worker(queue)
            entered.set()
            assert leave.wait(30)

    slow, other = Slow(), RecordingPublisher()
    holder = threading.Thread(target=relay, args=(engine, slow))
    holder.start()
    assert entered.wait(30)
    assert relay(engine, other) == 0
    late = job_queue.submit()  # the relay that holds the lock has already read its rows
    waiter = threading.Thread(target=relay, args=(engine, other), kwargs={"wait": True})
    waiter.start()
    leave.set()
    holder.join(30)
    waiter.join(30)
    assert [document["id"] for _, document, _ in other.updates] == [late]


def test_the_relay_process_publishes_within_a_quarter_of_a_second(job_queue: JobQueue, engine: Engine) -> None:
    class Timed(RecordingPublisher):
        def __init__(self) -> None:
            super().__init__()
            self.came = threading.Event()

        def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
            super().update(outbox_id, document, final=final)
            self.came.set()

    publisher, stop = Timed(), threading.Event()
    relayer = OutboxRelay(engine, publisher, stop, poll_seconds=5.0)
    thread = threading.Thread(target=relayer.run)
    thread.start()
    delays = []
    job_queue.submit()
    assert publisher.came.wait(30)  # the relay listens for notifications from now on
    for _ in range(7):
        publisher.came.clear()
        job_queue.submit()
        began = time.perf_counter()
        assert publisher.came.wait(4), "woken by the poll, not by the commit"
        delays.append(time.perf_counter() - began)
    stop.set()
    job_queue.submit()  # the notification of this job wakes the relay, which then sees `stop`
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(delays)[3] < 0.25


def test_published_rows_are_pruned_after_a_while(job_queue: JobQueue, engine: Engine) -> None:
    job_queue.submit()
    relay(engine, RecordingPublisher())
    job_queue.submit()
    assert job_queue.do(prune) == 0
    job_queue.sql("UPDATE outbox SET published_at = now() - interval '2 hours' WHERE published_at IS NOT NULL")
    assert job_queue.do(prune) == 2
    assert job_queue.do(waiting)[0] == 2
