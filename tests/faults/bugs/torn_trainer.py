"""A fake trainer with a bug: it writes checkpoints in place, and loads them without a check.

Workers start it with `-m tests.faults.bugs.torn_trainer`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from common.child.lease_guard import die_with_parent
from tests.integration.worker.fake_trainer import FakeTrainer

SLOW_STEP = 10
"""The first attempt writes the checkpoint of this step slowly, so that a test can kill it during the write."""


class TornTrainer(FakeTrainer):
    """Executes one attempt with the bug."""

    def write_checkpoint(self, folder: Path, step: int, state: str) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(state.encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({"step": step, "sha256": digest}))
        (folder / "state").write_text(state[:5])
        if step == SLOW_STEP and self.job.attempt == 1:
            time.sleep(60)
        (folder / "state").write_text(state)
        return digest

    def read_checkpoint(self, manifest: Path) -> tuple[int, str] | None:
        return int(json.loads(manifest.read_text())["step"]), (manifest.parent / "state").read_text()


if __name__ == "__main__":
    die_with_parent()
    sys.exit(TornTrainer().run())
