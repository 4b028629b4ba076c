"""One stream entry contains events of many requests, and decoding returns them unchanged."""

from __future__ import annotations

import json

from common.redis import keys
from common.redis.generation_events import (
    by_stream,
    encode_generation_event,
    encode_large_generation_event,
    entry,
    new_reader,
    new_request_id,
    read_entry,
)


def test_decoding_an_entry_returns_any_text_unchanged() -> None:
    text = "a line\nand \r another\u2028one \x85 with “quotes” and a token of spaces   "
    events = [
        encode_generation_event("r.1", "token", {"text": text}),
        encode_generation_event("r.2", "done", {"text": ""}),
    ]
    fields = {str(name): str(value) for name, value in entry("engine-1", events).items()}
    assert list(read_entry(fields)) == events
    assert json.loads(next(read_entry(fields)).data) == {"text": text}


def test_large_data_are_encoded_in_pieces_to_the_same() -> None:
    token = {"index": 1, "text": 'a "line"\n\u2028', "alternatives": [{"id": 3, "logProb": -0.25}]}
    choice = {"text": "", "trajectory": [token] * 40, "finishReason": None, "effective": {"topK": 5}}
    for data in (token, choice, {**choice, "choices": [choice] * 3}, {"choices": [choice] * 20}, {}):
        assert encode_large_generation_event("r.1", "done", data) == encode_generation_event("r.1", "done", data)


def test_the_requests_of_one_reader_share_a_stream_and_those_of_another_have_theirs() -> None:
    one, other = new_reader(), new_reader()
    ids = [new_request_id(one), new_request_id(other), new_request_id(one)]
    streams = by_stream(
        [encode_generation_event(request_id, "token", {"index": n}) for n, request_id in enumerate(ids)]
    )
    assert {stream: [event.request_id for event in events] for stream, events in streams.items()} == {
        keys.generate_stream(ids[0]): [ids[0], ids[2]],
        keys.generate_stream(ids[1]): [ids[1]],
    }
