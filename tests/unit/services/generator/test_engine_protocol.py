"""The channel between the generator's worker and its engine process."""

from __future__ import annotations

import os

import pytest

from common.child.socket import CHILD_FD_VARIABLE
from services.generator.engine_protocol import MAX_LINE_BYTES, EngineChannel


def test_messages_arrive_in_order_and_end_with_the_peer() -> None:
    worker, inherited = EngineChannel.pair()
    child = EngineChannel.from_environment({CHILD_FD_VARIABLE: str(os.dup(inherited.fileno()))})
    inherited.close()
    child.send("ready")
    child.send("done", "r1")
    worker.send("generate", "r1")
    worker.send("generate", "r2")
    received = child.messages()
    assert [next(received)["request_id"], next(received)["request_id"]] == ["r1", "r2"]
    child.close()
    assert list(worker.messages()) == [
        {"type": "ready", "request_id": ""},
        {"type": "done", "request_id": "r1"},
    ]
    worker.close()


@pytest.mark.parametrize("line", [b"noise\n", b"[1]\n", b'{"type": "explode"}\n', b"x" * (MAX_LINE_BYTES + 1)])
def test_invalid_lines_are_refused(line: bytes) -> None:
    worker, other = EngineChannel.pair()
    other.sendall(line)
    other.close()
    with pytest.raises(ValueError, match=r"not a message|Expecting value|longer than"):
        list(worker.messages())
    worker.close()
