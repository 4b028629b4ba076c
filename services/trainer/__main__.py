"""Entry point of the trainer process, under a supervisor or, with `--local`, without services.

The connection to the supervisor exists before torch is imported, because the import takes seconds.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run one job. Return 0 after an outcome, 1 after a failure, 2 for a wrong command line."""
    # With other load on the machine, OpenMP threads that spin while waiting make a training 4 times slower
    # (docs/decisions/0007). OpenMP reads this variable when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "--local" in sys.argv[1:]:
        from services.trainer.local import run_local

        return run_local(sys.argv[1:])
    from services.trainer.child import run_child

    status = run_child()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and reported. Exit without cleanup, because a library thread may still be busy and torch
    # takes seconds to shut down.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
