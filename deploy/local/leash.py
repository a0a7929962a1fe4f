"""Become another program, tied to the life of the process that asked for it. Run as a file, never imported.

Usage: `python -I -S leash.py PARENT_PID PROGRAM ARGUMENT...`

Linux only tells a child of its parent's death if the child asks (prctl), and asking between fork and exec is not
safe in a threaded parent. So this single-threaded step asks, and then turns into the program: same pid, same argv,
no process more. Imports next to nothing: it stands in the way of every start.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent_pid: int, argv: list[str]) -> None:
    """Ask for SIGKILL at the parent's death where the system can, then exec."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only where it is of use

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before we asked
            sys.exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the point: no shell, our own arguments
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
