"""The entry point `python -m services.trainer`: the child of a supervisor or, with `--local`, a program of its own.

The connection to the supervisor is opened before torch is imported, because the import takes seconds.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Execute one job and return the exit status.

    With `--calibrate DATA_DIR`, measure this machine instead; 0 means that the calibration is stored.

    A child returns 0 if the job was completed, paused, stopped or drained. With `--local`, 0 means completed and 3
    stopped. In both cases, 1 means a failure and 2 an invalid start.
    """
    # Waiting OpenMP threads must not spin: with other load on the machine, that makes a training 4 times slower
    # (docs/decisions/0007). OpenMP reads this variable when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.argv[1:2] == ["--calibrate"]:
        from services.trainer.calibration import run_calibration

        return run_calibration(sys.argv[2:])
    if "--local" in sys.argv[1:]:
        from services.trainer.local import run_local

        return run_local(sys.argv[1:])
    from services.trainer.child import run_child

    status = run_child()
    sys.stdout.flush()
    sys.stderr.flush()
    # All files are written and the result is reported. Exit without Python's cleanup, because a thread of a library may
    # still be busy, and torch takes seconds to shut down.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
