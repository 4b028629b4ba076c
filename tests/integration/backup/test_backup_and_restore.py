"""A backup made while jobs run is restored into an empty installation, where the jobs continue."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.backup import read_manifest
from common.config import Settings
from common.db import Analysis, Experiment, Job, JobEvent, downgrade, make_engine, schema_status, session_factory
from common.errors import ConflictError, InvalidInputError, StorageError
from common.jobs.queue import NewJob, enqueue_job
from tests.integration.backup.backups import restore, save
from tests.integration.worker.workers import Workers
from tidal_client.vocabulary import JobType

ENDLESS = {"steps": 1_000_000, "every": 5, "step_seconds": 0.02}


def submitted(sessions: sessionmaker[Session]) -> str:
    with sessions.begin() as session:
        return enqueue_job(session, NewJob(type=JobType.LM_TRAINING, payload={"config": {}})).id


def history(sessions: sessionmaker[Session]) -> dict[str, list[str]]:
    with sessions() as session:
        events = session.scalars(select(JobEvent).order_by(JobEvent.id)).all()
    jobs: dict[str, list[str]] = {}
    for event in events:
        jobs.setdefault(event.job_id, []).append(f"{event.attempt} {event.event} {event.to_status} {event.details}")
    return jobs


def test_jobs_of_every_kind_go_on_after_a_restore(
    settings: Settings, sessions: sessionmaker[Session], elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "saved.tar"
    with Workers(settings, sessions, tmp_path) as workers:
        workers.worker(plan={"steps": 10})
        finished = workers.submit()
        workers.wait_status(finished, "completed")
        model = (workers.experiment(finished) / "model.pth").read_bytes()
        workers.kill("worker")
        workers.worker(plan=ENDLESS)
        paused = workers.submit()
        workers.wait_steps(paused, 7)
        workers.signal(paused, "pause")
        workers.wait_status(paused, "paused")
        paused_at = workers.job(paused).checkpoint_step
        running = workers.submit()
        workers.wait_steps(running, 7)
        waiting = workers.submit()
        with sessions.begin() as session:
            about = workers.job(finished).experiment_id
            session.add(Analysis(id="ana_1", experiment_id=about, kind="single", request={}, result={"text": "\x00\\"}))
        saved = save(settings, backup)
        workers.wait_steps(running, 20)  # the backup does not disturb the worker
        assert workers.job(running).attempt == 1
        before = history(sessions)
        workers.cancel(waiting)  # not in the backup, so this job is pending after the restore
        workers.signal(running, "stop")
        workers.wait_status(running, "cancelled")
    assert saved.jobs == 4
    assert saved.experiments == 3  # the pending job has no files yet

    assert restore(backup, elsewhere).jobs == {"completed": 1, "paused": 1, "pending": 1, "running": 1}
    engine = make_engine(elsewhere.database_url)
    fresh = session_factory(engine)
    try:
        assert schema_status(engine).state == "current"
        after = history(fresh)
        assert after[finished] == before[finished]
        with fresh() as session:
            assert session.execute(select(Analysis.experiment_id, Analysis.result)).all() == [
                (about, {"text": "\x00\\"})
            ]
        for job_id in (paused, running, waiting):
            *old, last = after[job_id]
            assert old == before[job_id][: len(old)]
            assert last.startswith("100 restored")
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        with Workers(elsewhere, fresh, tmp_path / "elsewhere") as workers:
            newest = sorted(workers.experiment(running).glob("checkpoints/*/manifest.json"))[-1]
            saved_step = json.loads(newest.read_text())["step"]
            steps_then = len(workers.steps(running))
            workers.worker(plan={"steps": saved_step + 30, "every": 5})
            workers.signal(paused, "resume")
            for job_id in (running, waiting, paused):
                workers.wait_status(job_id, "completed", seconds=60)
            assert [to for to in workers.statuses(running) if to in ("stale", "pending")][-2:] == ["stale", "pending"]
            assert workers.job(running).attempt == 101
            later = workers.steps(running)[steps_then:]
            assert (later[0].attempt, later[0].step) == (101, saved_step + 1)
            assert [step.step for step in later] == list(range(saved_step + 1, saved_step + 31))
            assert paused_at is not None
            resumed = [step.step for step in workers.steps(paused) if step.attempt > 100]
            assert resumed[0] == paused_at + 1
            assert (workers.experiment(finished) / "model.pth").read_bytes() == model
            assert workers.statuses(finished).count("completed") == 1
    finally:
        engine.dispose()


def test_an_attempt_that_still_runs_somewhere_may_not_write_after_a_restore(
    settings: Settings, sessions: sessionmaker[Session], elsewhere: Settings, tmp_path: Path
) -> None:
    from common.errors import LeaseLostError
    from common.jobs.claiming import claim_job
    from common.jobs.lease import renew

    job_id = submitted(sessions)
    with sessions.begin() as session:
        assert claim_job(session, "training", "worker-1", settings) is not None
    save(settings, tmp_path / "saved.tar")
    restore(tmp_path / "saved.tar", elsewhere)
    engine = make_engine(elsewhere.database_url)
    try:
        for attempt in (1, 2):  # attempt 1 is in the backup; attempt 2 may be claimed after the backup
            with pytest.raises(LeaseLostError), session_factory(engine).begin() as session:
                renew(session, job_id, attempt, elsewhere)
    finally:
        engine.dispose()


def test_what_is_pruned_or_written_meanwhile_leaves_no_half_checkpoint(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    folder = settings.experiments_dir / "exp" / "checkpoints"

    def checkpoint(step: int) -> None:
        path = folder / f"step-{step:09d}"
        path.mkdir(parents=True)
        for name in ("weights.safetensors", "training_state.pt", "manifest.json"):
            (path / name).write_text(f"{name} {step}")

    for step in (1, 2, 3):
        checkpoint(step)
    (folder / ".tmp-half").mkdir()
    (folder / ".tmp-half" / "weights.safetensors").write_text("half")
    pruned: list[int] = []

    def trainer_goes_on(size: int) -> None:
        if not pruned:
            pruned.append(1)
            checkpoint(4)
            shutil.rmtree(folder / "step-000000001")

    target = tmp_path / "saved.tar"
    save(settings, target, progress=trainer_goes_on)
    names = [name for name in read_manifest(target).members if name.startswith("experiments/")]
    files = ("training_state.pt", "weights.safetensors", "manifest.json")
    assert sorted(names) == sorted(
        f"experiments/exp/checkpoints/step-{step:09d}/{name}" for step in (2, 3, 4) for name in files
    )


def test_a_place_that_holds_something_is_left_alone_without_force(
    settings: Settings, sessions: sessionmaker[Session], engine: Engine, tmp_path: Path
) -> None:
    submitted(sessions)
    experiment = settings.experiments_dir / "old"
    experiment.mkdir(parents=True)
    (experiment / "model.pth").write_text("as it was")
    backup = tmp_path / "saved.tar"
    save(settings, backup)
    with pytest.raises(ConflictError, match="already exists and is not replaced"):
        save(settings, backup)
    with sessions() as session, pytest.raises(ConflictError, match=r"in use by tidal \(1\)"):
        session.execute(text("SELECT 1"))
        restore(backup, settings, force=True)
    newer = submitted(sessions)
    (experiment / "model.pth").write_text("newer")
    engine.dispose()
    with pytest.raises(ConflictError, match="2 experiments, 2 jobs; --force"):
        restore(backup, settings)
    with sessions() as session:
        assert session.get(Job, newer) is not None
    engine.dispose()
    restore(backup, settings, force=True, keep_files=True)
    assert (experiment / "model.pth").read_text() == "newer"
    with sessions() as session:
        assert session.get(Job, newer) is None
        assert session.scalars(select(Experiment.id)).all() != []
    engine.dispose()
    restore(backup, settings, force=True)
    assert (experiment / "model.pth").read_text() == "as it was"
    (aside,) = settings.experiments_dir.glob(".before-restore-*")
    assert (aside / "old" / "model.pth").read_text() == "newer"
    assert submitted(sessions)  # new rows get ids greater than those of the restored rows


def test_what_is_started_while_a_backup_is_unpacked_keeps_its_database(
    settings: Settings, sessions: sessionmaker[Session], engine: Engine, tmp_path: Path
) -> None:
    experiment = settings.experiments_dir / "old"
    experiment.mkdir(parents=True)
    (experiment / "model.pth").write_text("as it was")
    backup = tmp_path / "saved.tar"
    save(settings, backup)
    newer = submitted(sessions)
    engine.dispose()
    with sessions() as session, pytest.raises(ConflictError, match=r"in use by tidal \(1\)"):
        restore(backup, settings, force=True, progress=lambda size: session.execute(text("SELECT 1")))
    with sessions() as session:
        assert session.get(Job, newer) is not None
    assert not list(settings.experiments_dir.glob(".*"))


def test_a_damaged_backup_is_refused_before_anything_is_touched(
    settings: Settings, sessions: sessionmaker[Session], engine: Engine, elsewhere: Settings, tmp_path: Path
) -> None:
    job_id = submitted(sessions).encode()
    backup = tmp_path / "saved.tar"
    save(settings, backup)
    content = backup.read_bytes()
    for name, damaged, expected in (
        ("cut", content[: content.index(b"manifest.json")], "no manifest"),
        ("changed", content.replace(job_id, job_id[::-1]), "SHA-256"),
    ):
        path = tmp_path / name
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=expected):
            restore(path, elsewhere)
    (tmp_path / "text").write_text("no backup at all" * 100)
    with pytest.raises(InvalidInputError, match="not a backup of Tidal"):
        restore(tmp_path / "text", elsewhere)
    empty = make_engine(elsewhere.database_url)
    try:
        assert schema_status(empty).state == "unmigrated"
        assert list(elsewhere.experiments_dir.iterdir()) == []
    finally:
        empty.dispose()


def test_a_backup_of_another_version_is_named_and_an_older_database_is_not_saved(
    settings: Settings, sessions: sessionmaker[Session], engine: Engine, elsewhere: Settings, tmp_path: Path
) -> None:
    from common.errors import UnavailableError

    backup = tmp_path / "saved.tar"
    save(settings, backup)
    with tarfile.open(backup) as saved, tarfile.open(tmp_path / "newer.tar", "w") as newer:
        for member in saved:
            data = saved.extractfile(member)
            assert data is not None
            content = data.read()
            if member.name == "manifest.json":
                content = json.dumps({**json.loads(content), "revision": "9999", "tidal": "99.0"}).encode()
                member.size = len(content)
            newer.addfile(member, io.BytesIO(content))
    with pytest.raises(ConflictError, match=r"Tidal 99.0 with database revision 9999.*update Tidal first"):
        restore(tmp_path / "newer.tar", elsewhere)
    engine.dispose()
    downgrade(settings.database_url)
    with pytest.raises(UnavailableError, match="tidal db migrate"):
        save(settings, tmp_path / "none.tar")
    assert not (tmp_path / "none.tar").exists()
