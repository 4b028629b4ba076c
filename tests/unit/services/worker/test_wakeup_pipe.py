"""A wakeup pipe ends the wait in another thread."""

from __future__ import annotations

import os
import select
import threading

from services.worker.wakeup_pipe import WakeupPipe


def is_set(wakeup: WakeupPipe) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_it_stays_set_until_it_is_cleared_however_often_it_was_set() -> None:
    wakeup = WakeupPipe()
    assert not is_set(wakeup)
    for _ in range(100_000):  # more bytes than a pipe can hold
        wakeup.set()
    assert is_set(wakeup)
    wakeup.clear()
    assert not is_set(wakeup)
    wakeup.set()
    assert is_set(wakeup)
    wakeup.close()


def test_it_ends_a_wait_of_another_thread() -> None:
    wakeup = WakeupPipe()
    woken = threading.Event()

    def wait() -> None:
        select.select([wakeup.fileno()], [], [])
        woken.set()

    threading.Thread(target=wait).start()
    wakeup.set()
    assert woken.wait(20)
    wakeup.close()


def test_after_close_it_touches_no_descriptor() -> None:
    wakeup = WakeupPipe()
    closed = wakeup.fileno()
    wakeup.close()
    reader, writer = os.pipe()  # the new pipe gets the numbers of the closed descriptors
    try:
        assert closed in (reader, writer)
        os.write(writer, b"mine")
        wakeup.set()
        wakeup.clear()
        wakeup.close()
        assert os.read(reader, 100) == b"mine"
    finally:
        os.close(reader)
        os.close(writer)
