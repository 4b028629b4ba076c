"""A trainer without torch for tests of the worker: it counts steps, records them and follows the trainer protocol.

Each step appends {"job", "attempt", "step", "began", "ended", "time", "state"} to `steps.jsonl` in the experiment
folder. `began` and `ended` are seconds of the host's monotonic clock, and `time` is in seconds since 1970. `state` is a
chain of hashes that is correct only if the trainer resumed from the right checkpoint. Metrics use the real
MetricsWriter. The final `model.pth` contains the number of the attempt that wrote it.

TIDAL_FAKE_TRAINER (JSON) sets the behaviour of all trainers; `plan.json` in an experiment folder sets that of one job.
Keys: `begin_seconds` (delay before anything else, as for imports), `prepare_seconds` (delay before the first step of a
job without a checkpoint), `steps`, `step_seconds`, `every` (steps between checkpoints), `completing_seconds` (delay
between the last step and the model), `helpers` (number of processes that the trainer starts), `deaf` (ignores stop
requests and SIGTERM), and `ending`, which happens at step `at`: "exit:<status>", "signal:<number>", "fail:<kind>",
"hang", "memory:<MiB>" (allocates that amount and exits) or "counter:<file>" (adds an oom_kill to that file and kills
itself). With `until_attempt`, the ending happens only in attempts up to this number.

Tests that shift the wall clock do not shift the recorded times.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, TextIO

from common.child.lease_guard import LeaseGuard, die_with_parent
from common.child.protocol import (
    ArtifactSaved,
    Channel,
    CheckpointSaved,
    Failed,
    Finished,
    HistoryEvent,
    PhaseEntered,
    Progress,
    Running,
    Start,
    Stop,
)
from common.metrics.names import LOSS
from common.metrics.writer import MetricsWriter

BEGINNING: Final = "0" * 16
"""The hash of the chain before the first step."""


class FakeTrainer:
    """Runs one attempt."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {
            "prepare_seconds": 0.0,
            "steps": 20,
            "step_seconds": 0.02,
            "every": 5,
            "completing_seconds": 0.0,
            "helpers": 0,
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
        self.metrics = MetricsWriter(
            self.folder,
            start.redis_url,
            self.job.experiment_id,
            self.job.job_id,
            self.job.attempt,
            stream_max_length=start.stream_max_length,
        )
        time.sleep(self.plan.get("begin_seconds", 0.0))
        self.lease_guard = LeaseGuard(start.pause_after_seconds, start.renewed_at)
        self.request: str | None = None
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        try:
            while True:
                message = self.channel.receive()
                assert message is not None
                self.lease_guard.handle(message)
                if isinstance(message, Stop) and not self.plan["deaf"]:
                    self.request = message.request
        except EOFError:
            os._exit(1)

    def run(self) -> int:
        print_line(f"attempt {self.job.attempt} begins")
        for _ in range(self.plan["helpers"]):
            subprocess.Popen(["sleep", "600"])
        print_line("a warning on stderr", sys.stderr)
        self.channel.send(PhaseEntered(name="loading data"))
        step, state = self.newest_checkpoint()
        if step:
            self.channel.send(HistoryEvent(name="resumed", details={"step": step}))
        else:
            time.sleep(self.plan["prepare_seconds"])
        if self.job.attempt > 1:
            self.metrics.rewind(step)
        self.channel.send(Running())
        self.channel.send(PhaseEntered(name="training"))
        with (self.folder / "steps.jsonl").open("a", buffering=1) as steps:
            while step < self.plan["steps"] and self.request is None:
                self.lease_guard.wait()
                began = time.monotonic()
                time.sleep(self.plan["step_seconds"])
                step += 1
                state = state_after(state, step)
                line = {"job": self.job.job_id, "attempt": self.job.attempt, "step": step, "time": now()}
                line |= {"began": began, "ended": time.monotonic(), "state": state}
                steps.write(json.dumps(line) + "\n")
                self.metrics.add("metrics", step, {LOSS: 1.0 / step})
                self.channel.send(Progress(step=step, total_steps=self.plan["steps"]), droppable=True)
                if step % self.plan["every"] == 0:
                    self.save(step, state)
                if step == self.plan["at"] and self.job.attempt <= self.plan.get("until_attempt", 1_000):
                    self.end_badly()
        print_line(f"last step {step}")
        if self.request in (None, "complete"):
            return self.finish(step)
        self.save(step, state)
        outcomes = {"pause": "paused", "stop": "stopped", "drain": "drained"}
        self.leave(Finished.model_validate({"outcome": outcomes[str(self.request)]}))
        return 0

    def finish(self, step: int) -> int:
        self.channel.send(PhaseEntered(name="completing"))
        time.sleep(self.plan["completing_seconds"])
        model = {"job": self.job.job_id, "attempt": self.job.attempt, "step": step}
        partial = self.folder / f".model-{self.job.attempt}"
        partial.write_text(json.dumps(model))
        partial.replace(self.folder / "model.pth")
        self.channel.send(ArtifactSaved(name="model.pth", kind="model"))
        if "analysis" in self.plan:
            analysis = {**self.plan["analysis"], "attempt": self.job.attempt}
            (self.folder / "analysis_results.json").write_text(json.dumps(analysis))
            self.channel.send(ArtifactSaved(name="analysis_results.json", kind="analysis"))
            if self.job.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        self.leave(Finished(outcome="completed"))
        return 0

    def leave(self, message: Finished) -> None:
        """Close the metrics writer, which completes the archive, and then send the last message."""
        self.metrics.flush()
        self.channel.send(message)
        self.metrics.close()

    def save(self, step: int, state: str) -> None:
        self.metrics.flush()
        name = f"step-{step:09d}"
        digest = self.write_checkpoint(self.folder / "checkpoints" / name, step, state)
        self.channel.send(CheckpointSaved(name=name, step=step, sha256=digest, size_bytes=len(state)))

    def write_checkpoint(self, folder: Path, step: int, state: str) -> str:
        """Write a checkpoint atomically: the manifest gets its final name only after all other files are complete."""
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(state.encode()).hexdigest()
        if self.read_checkpoint(folder / "manifest.json") == (step, state):
            return digest
        (folder / "state").write_text(state)
        partial = folder / ".partial"
        partial.write_text(json.dumps({"step": step, "sha256": digest}))
        partial.replace(folder / "manifest.json")
        return digest

    def newest_checkpoint(self) -> tuple[int, str]:
        """Return (step, state) of the newest valid checkpoint, or (0, BEGINNING) if there is none."""
        for manifest in sorted(self.folder.glob("checkpoints/*/manifest.json"), reverse=True):
            found = self.read_checkpoint(manifest)
            if found is not None:
                return found
            details = {"name": f"checkpoints/{manifest.parent.name}", "reason": "the digest differs"}
            self.channel.send(HistoryEvent(name="checkpoint_skipped", details=details))
        return 0, BEGINNING

    def read_checkpoint(self, manifest: Path) -> tuple[int, str] | None:
        """Return (step, state) of a checkpoint, or None if it is damaged."""
        try:
            manifest_data = json.loads(manifest.read_text())
            state = (manifest.parent / "state").read_text()
            sound = hashlib.sha256(state.encode()).hexdigest() == manifest_data["sha256"]
        except (OSError, ValueError, KeyError):
            return None
        return (int(manifest_data["step"]), state) if sound else None

    def end_badly(self) -> None:
        how, _, what = self.plan["ending"].partition(":")
        if how == "exit":
            print_line("about to leave")
            os._exit(int(what))
        if how == "signal":
            os.kill(os.getpid(), int(what))
        if how == "fail":
            self.channel.send(Failed.model_validate({"code": "bad_data", "message": "no such corpus", "kind": what}))
            os._exit(1)
        if how == "hang":
            threading.Event().wait()
        if how == "counter":
            counter = Path(what)
            lines = [line.split() for line in counter.read_text().splitlines()]
            counter.write_text("".join(f"{name} {int(n) + (name == 'oom_kill')}\n" for name, n in lines))
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "memory":
            taken = [bytes([1]) * 2**20 for _ in range(int(what))]
            print_line(f"{len(taken)} MiB taken")
            os._exit(1)


def now() -> float:
    """Return the seconds since 1970, by a clock that no test shifts."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def state_after(state: str, step: int) -> str:
    """Return the hash that follows `state` in the chain; each step adds one."""
    return hashlib.sha256(f"{state}:{step}".encode()).hexdigest()[:16]


def print_line(text: str, stream: TextIO = sys.stdout) -> None:
    """Print a line, which the worker writes to the log of the job."""
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    die_with_parent()
    trainer = FakeTrainer()
    if trainer.plan["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(trainer.run())
