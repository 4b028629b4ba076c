"""Executes a program after asking the kernel to send it SIGKILL when the supervisor dies.

    python -I -S launch.py SUPERVISOR_PID NICE PROGRAM ARGUMENT…

It is a separate program, because Python code must not run between fork and exec. It uses only the standard library.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, nice, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # the supervisor died before the request took effect
        sys.exit(1)
    if int(nice):
        os.nice(int(nice))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
