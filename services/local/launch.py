"""Asks the kernel to send SIGKILL to this process when the supervisor ends, then executes a program.

    python -I -S launch.py SUPERVISOR_PID NICE PROGRAM ARGUMENT…

This is a separate program, because no Python code should run between fork and exec. It uses only the standard library.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, nice, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # The supervisor ended before the request to the kernel took effect.
        sys.exit(1)
    if int(nice):
        os.nice(int(nice))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
