"""Publishes to Redis: notifications to workers (Celery messages), job-updates (streams), new desired states (pub/sub).

Celery is used only as a producer (no worker, no result backend). Every call has a timeout of a few seconds. A call
raises UnavailableError when Redis does not answer, and ValueError for a message that Redis will never accept. Each
thread needs its own publisher, which owns its connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import redis
from kombu.exceptions import KombuError, OperationalError, SerializationError
from pydantic import SecretStr

from common.errors import UnavailableError
from common.redis import keys
from common.redis.celery_settings import NOTIFY_TASK, make_producer
from common.redis.client import COMMANDS, connect

REPEAT_SECONDS: Final = 24 * 3600
"""Time in seconds for which the id of a published outbox row is kept, so that publishing the row again has no
effect."""

_UPDATE = """
if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) == false then return 0 end
for i = 2, #KEYS do
    redis.call('XADD', KEYS[i], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[3], 'data', ARGV[4])
    if i > 2 and ARGV[5] ~= '0' then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
return 1
"""


class RedisPublisher:
    """The implementation of `common.jobs.outbox.Publisher` for production."""

    def __init__(
        self, redis_url: str | SecretStr, *, stream_max_length: int = 20_000, timeout: float = COMMANDS.answer_timeout
    ) -> None:
        """Create a publisher that connects on first use.

        `timeout` in seconds applies to the connection and to each answer.
        """
        self._stream_max_length = stream_max_length
        self._redis = connect(redis_url, replace(COMMANDS, answer_timeout=timeout, connect_timeout=timeout))
        self._update = self._redis.register_script(_UPDATE)
        self._celery = make_producer("tidal-producer", redis_url, timeout)

    def notify_worker(self, queue: str) -> None:
        """Notify a worker of `queue` that a job may be claimed."""
        with _redis_errors():
            self._celery.send_task(NOTIFY_TASK, args=[queue], queue=queue, retry=False, ignore_result=True)

    def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
        """Append the job-update `document` to three streams: of all jobs, of the job, and of its experiment.

        A second call with the same `outbox_id` has no effect. If the job has ended (`final`), the streams of the job
        and of the experiment expire in one hour.
        """
        streams = [
            keys.JOBS_STREAM,
            keys.job_stream(document["id"]),
            keys.experiment_stream(document["experimentId"]),
        ]
        ttl = keys.STREAM_TTL_AFTER_END_SECONDS if final else 0
        arguments: list[str | int] = [
            REPEAT_SECONDS,
            self._stream_max_length,
            keys.EVENT_JOB_UPDATE,
            json.dumps(document),
            ttl,
        ]
        with _redis_errors():
            self._update(keys=[f"tidal:outbox:{outbox_id}", *streams], args=[str(value) for value in arguments])

    def notify_owner(self, job_id: str) -> None:
        """Notify the workers that the desired state of a job has changed."""
        with _redis_errors():
            self._redis.publish(keys.DESIRED_STATE_CHANNEL, job_id)

    def undelivered(self, queue: str) -> int:
        """Return the number of notifications in `queue` that no worker has received yet."""
        with _redis_errors():
            return self._redis.llen(queue)

    def beat(self, values: dict[str, str], *, ttl_seconds: float) -> None:
        """Write the heartbeat of the health process."""
        with _redis_errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(keys.HEALTH, mapping=dict(values.items()))
            pipe.pexpire(keys.HEALTH, round(ttl_seconds * 1000))
            pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        self._celery.close()
        self._redis.close()


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except (redis.DataError, SerializationError) as error:
        raise ValueError(f"the message cannot be encoded for Redis: {error}") from error
    except (redis.RedisError, KombuError, OperationalError, OSError) as error:
        if isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error):
            raise ValueError(f"the Redis key of the message holds a value of another type: {error}") from error
        raise UnavailableError(f"Redis does not answer: {error}") from error
