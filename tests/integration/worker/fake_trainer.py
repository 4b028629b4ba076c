"""A trainer without torch for the tests of the supervisor: counts steps, writes them down, keeps to the protocol.

Each step appends {"job", "attempt", "step", "time"} to `steps.jsonl` in the experiment's folder. TIDAL_FAKE_TRAINER
(JSON), and for one job `plan.json` in its experiment's folder, choose what it does: `prepare_seconds` (before the first
step of a job without checkpoint), `steps`, `step_seconds`, `every` (steps between checkpoints), `completing_seconds`
(between the last step and the model), `ending` at step `at`: "exit:<status>", "signal:<number>", "fail:<kind>", "hang",
"memory:<MiB>" (allocates so much and leaves), and `deaf` (ignores wishes and SIGTERM). `until_attempt` limits the
ending to the first attempts. Times come from a clock that a test which shifts the clock of a worker leaves alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from common.jobs.child_lifeline import Lifeline, die_with_parent
from common.jobs.child_protocol import (
    Artifact,
    Channel,
    Checkpoint,
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    Running,
    Start,
    Stop,
)


class FakeTrainer:
    """One attempt."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {
            "prepare_seconds": 0.0,
            "steps": 20,
            "step_seconds": 0.02,
            "every": 5,
            "completing_seconds": 0.0,
            "at": 7,
            "ending": "",
            "deaf": False,
        }
        self.plan |= json.loads(os.environ.get("TIDAL_FAKE_TRAINER", "{}"))
        self.channel = Channel.from_environment()
        start = self.channel.receive()
        assert isinstance(start, Start)
        self.job = start.job
        self.folder = Path(start.experiments_dir) / self.job.experiment_id
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "plan.json").exists():
            self.plan |= json.loads((self.folder / "plan.json").read_text())
        self.lifeline = Lifeline(start.pause_after_seconds)
        self.request: str | None = None
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        try:
            while True:
                message = self.channel.receive()
                assert message is not None
                self.lifeline.hear(message)
                if isinstance(message, Stop) and not self.plan["deaf"]:
                    self.request = message.request
        except EOFError:
            os._exit(1)

    def run(self) -> int:
        say(f"attempt {self.job.attempt} begins")
        say("a warning on stderr", sys.stderr)
        self.channel.send(Phase(name="loading data"))
        step = self.newest_checkpoint()
        if step:
            self.channel.send(Event(name="resumed", details={"step": step}))
        else:
            time.sleep(self.plan["prepare_seconds"])
        self.channel.send(Running())
        self.channel.send(Phase(name="training"))
        with (self.folder / "steps.jsonl").open("a", buffering=1) as steps:
            while step < self.plan["steps"] and self.request is None:
                self.lifeline.wait()
                time.sleep(self.plan["step_seconds"])
                step += 1
                line = {"job": self.job.job_id, "attempt": self.job.attempt, "step": step, "time": now()}
                steps.write(json.dumps(line) + "\n")
                self.channel.send(Progress(step=step, total_steps=self.plan["steps"]), droppable=True)
                if step % self.plan["every"] == 0:
                    self.save(step)
                if step == self.plan["at"] and self.job.attempt <= self.plan.get("until_attempt", 1_000):
                    self.end_badly()
        say(f"last step {step}")
        if self.request in (None, "complete"):
            return self.finish()
        self.save(step)
        outcomes = {"pause": "paused", "stop": "stopped", "drain": "drained"}
        self.channel.send(Finished.model_validate({"outcome": outcomes[str(self.request)]}))
        return 0

    def finish(self) -> int:
        self.channel.send(Phase(name="completing"))
        time.sleep(self.plan["completing_seconds"])
        (self.folder / "model.pth").write_bytes(b"weights")
        self.channel.send(Artifact(name="model.pth", kind="model"))
        self.channel.send(Finished(outcome="completed"))
        return 0

    def save(self, step: int) -> None:
        name = f"step-{step:09d}"
        folder = self.folder / "checkpoints" / name
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / ".partial"
        manifest.write_text(json.dumps({"step": step}))
        manifest.replace(folder / "manifest.json")
        digest = hashlib.sha256(str(step).encode()).hexdigest()
        self.channel.send(Checkpoint(name=name, step=step, sha256=digest, size_bytes=10))

    def newest_checkpoint(self) -> int:
        found = sorted(self.folder.glob("checkpoints/*/manifest.json"))
        return int(json.loads(found[-1].read_text())["step"]) if found else 0

    def end_badly(self) -> None:
        how, _, what = self.plan["ending"].partition(":")
        if how == "exit":
            say("about to leave")
            os._exit(int(what))
        if how == "signal":
            os.kill(os.getpid(), int(what))
        if how == "fail":
            self.channel.send(Failed.model_validate({"code": "bad_data", "message": "no such corpus", "kind": what}))
            os._exit(1)
        if how == "hang":
            threading.Event().wait()
        if how == "memory":
            taken = [bytes([1]) * 2**20 for _ in range(int(what))]
            say(f"{len(taken)} MiB taken")
            os._exit(1)


def now() -> float:
    """Seconds since 1970 by the true clock."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def say(text: str, stream: TextIO = sys.stdout) -> None:
    """A line for the job's log."""
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    die_with_parent()
    trainer = FakeTrainer()
    if trainer.plan["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(trainer.run())
