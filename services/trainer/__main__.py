"""Entry point of the trainer process, under a supervisor or with `--local` on its own.

The lifeline to the supervisor is up before torch is imported, which takes seconds.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run one job; the exit code is 0 after an outcome, 1 after a failure, 2 for a wrong command line."""
    # Threads that spin while they wait for each other cost 4 times the wall time on a machine that does other work
    # too (docs/decisions/0007). Read by OpenMP when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "--local" in sys.argv[1:]:
        from services.trainer.local import run_local

        return run_local(sys.argv[1:])
    from services.trainer.child import run_child

    status = run_child()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and told. A library may still be busy in a thread, and torch takes seconds to leave.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
