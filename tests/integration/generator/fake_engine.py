"""A fake engine process without torch that answers each request with the id of the request.

It crashes if the id begins with "crash", and hangs if the id begins with "hang".
"""

from __future__ import annotations

import json
import os
import sys
import threading

import redis

from common.child.lease_guard import die_with_parent
from common.redis import keys
from common.redis.generation_events import MAX_ENTRIES, EncodedEvent, entry
from services.generator.engine_protocol import EngineChannel
from tidal_client.wire.generation_event import EVENT_DONE


def main() -> None:
    die_with_parent()
    client = redis.Redis.from_url(sys.argv[1])
    channel = EngineChannel.from_environment()
    channel.send("ready")
    for message in channel.messages():
        request_id = message["request_id"]
        if client.getdel(keys.generate_request(request_id)) is None:
            channel.send("done", request_id)
            continue
        if request_id.startswith("crash"):
            os._exit(1)
        if request_id.startswith("hang"):
            threading.Event().wait()
        answer = {"text": request_id, "pid": os.getpid(), "environment": dict(os.environ)}
        ended = entry("", [EncodedEvent(request_id, EVENT_DONE, json.dumps(answer))])
        client.xadd(keys.generate_stream(request_id), ended, maxlen=MAX_ENTRIES)
        channel.send("done", request_id)


if __name__ == "__main__":
    main()
