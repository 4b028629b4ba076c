"""A snapshot begins after it is requested, and concurrent requests share one snapshot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.api.streaming.entries import StreamEntry, StreamPosition
from services.api.streaming.snapshots import StreamSnapshots
from services.api.streaming.topic import Topic


class World:
    """A value that the test changes, with a counter of its reads."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.go_on = asyncio.Event()

    async def position(self, _: str) -> StreamPosition:
        return StreamPosition((self.value, 0), "epoch")

    async def state(self) -> Any:
        seen = self.value
        self.reads += 1
        await self.go_on.wait()
        return {"value": seen}


def test_concurrent_requests_share_a_snapshot_and_a_later_request_gets_a_later_one() -> None:
    async def scenario() -> tuple[list[str], int]:
        world = World()
        snapshots = StreamSnapshots(world.position)
        early = [asyncio.create_task(snapshots.take("k", world.state)) for _ in range(50)]
        while not world.reads:
            await asyncio.sleep(0)
        world.value = 1  # the first snapshot was begun before this value was set
        late = [asyncio.create_task(snapshots.take("k", world.state)) for _ in range(50)]
        await asyncio.sleep(0)
        world.go_on.set()
        return [snapshot.state for snapshot in await asyncio.gather(*early, *late)], world.reads

    states, reads = asyncio.run(scenario())
    assert states == ['{"value": 0}'] * 50 + ['{"value": 1}'] * 50
    assert reads == 2


def test_a_failure_reaches_all_waiting_clients_and_the_next_request_retries() -> None:
    async def scenario() -> tuple[list[Any], str]:
        world = World()
        world.go_on.set()
        snapshots = StreamSnapshots(world.position)

        async def broken() -> Any:
            raise LookupError("missing")

        failed = await asyncio.gather(*(snapshots.take("k", broken) for _ in range(3)), return_exceptions=True)
        return failed, (await snapshots.take("k", world.state)).state

    failed, state = asyncio.run(scenario())
    assert [str(error) for error in failed] == ["missing"] * 3
    assert state == '{"value": 0}'


def test_a_cancelled_request_does_not_cancel_the_snapshot_of_others() -> None:
    async def scenario() -> str:
        world = World()
        snapshots = StreamSnapshots(world.position)
        first, second = (asyncio.create_task(snapshots.take("k", world.state)) for _ in range(2))
        while not world.reads:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.go_on.set()
        return (await second).state

    assert asyncio.run(scenario()) == '{"value": 0}'


def test_the_ring_holds_a_cursor_that_is_the_id_of_an_entry() -> None:
    async def scenario() -> Topic:
        topic = Topic("k")
        topic.restart(StreamPosition((5, 0), "epoch"))
        topic.publish([StreamEntry((n, 0), b"x", b"x") for n in (7, 9, 11)])
        return topic

    topic = asyncio.run(scenario())
    assert [n for n in range(14) if topic.holds((n, 0))] == [5, 7, 9, 11]
    expected = {5: [7, 9, 11], 6: [7, 9, 11], 7: [9, 11], 8: [9, 11], 9: [11], 10: [11], 11: [], 12: []}
    for cursor, ids in expected.items():
        assert [entry.id[0] for entry in topic.entries_after((cursor, 0)) or []] == ids
    assert topic.entries_after((4, 0)) is None
