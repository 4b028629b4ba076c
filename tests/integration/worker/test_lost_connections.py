"""After a lost connection to the database, a worker repeats its write and leaves notifications to other workers."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session, sessionmaker

from common.child.lease_guard import lease_clock
from common.config import Settings
from common.db import make_engine, session_factory
from services.worker import lease_keeper
from services.worker.lease_keeper import LeaseKeeper
from services.worker.row_writer import RowWriter
from services.worker.worker import Worker
from tests.faults.proxy import TcpProxy

BACKEND_ENDED = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = :pid)"


def wait_until_ended(sessions: sessionmaker[Session], pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with sessions.begin() as session:
            if session.scalar(text(BACKEND_ENDED), {"pid": pid}):
                return
    raise AssertionError("the server did not end the idle transaction")


def test_a_write_whose_transaction_was_idle_for_too_long_is_repeated(
    settings: Settings, sessions: sessionmaker[Session]
) -> None:
    engine = make_engine(settings.database_url, idle_in_transaction_timeout=0.2)
    writer = RowWriter(session_factory(engine))
    met: list[BaseException] = []

    def write(session: Session) -> str:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        if not met:
            wait_until_ended(sessions, cast("int", pid))
            try:
                session.execute(text("SELECT 1"))
            except Exception as error:
                met.append(error)
                raise
        return "written"

    assert writer.submit(write).result(timeout=30) == "written"
    writer.close()
    engine.dispose()
    assert [type(error) for error in met] == [InternalError], "the case this test is about"


def test_a_lease_that_cannot_be_renewed_for_an_unknown_reason_is_tried_again_after_a_pause(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "_RETRY_SECONDS", 0.2)
    tries: list[float] = []
    enough = threading.Event()

    class Broken:
        def begin(self) -> Any:
            tries.append(time.monotonic())
            if len(tries) == 3:
                enough.set()
            raise RuntimeError("an unforeseen error")

    keeper = LeaseKeeper(cast("Any", Broken()), "job_1", 1, settings, claimed_at=lease_clock() - 1000)
    keeper.start()
    assert enough.wait(20)
    keeper.stop()
    assert tries[1] - tries[0] >= 0.2
    assert tries[2] - tries[1] >= 0.2


def test_a_worker_without_a_database_keeps_its_notification_until_it_answers_or_shuts_down(
    settings: Settings,
) -> None:
    """Without a database, `run_next` must not return, or the worker would use up notifications that others need."""
    with TcpProxy.of_url(settings.database_url.get_secret_value()) as proxy:
        worker = Worker(settings.model_copy(update={"database_url": SecretStr(proxy.url)}), queue="training")
        answers: list[str] = []
        for end in (proxy.heal, worker.drain):
            proxy.cut()
            notification = threading.Thread(target=lambda: answers.append(worker.run_next("training")))
            notification.start()
            notification.join(1.0)
            assert notification.is_alive()
            end()
            notification.join(20)
        worker.close()
    assert answers == ["no job to claim", "the worker is shutting down"]
