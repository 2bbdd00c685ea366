"""A process between a server and the command that it starts: when the server has gone, it ends the command and all that
this started.

    python child_guard.py COMMAND...

The server holds the other end of this process's standard input. It closes it to have everything ended at once, and the
kernel closes it when the server ends, also by SIGKILL. SIGTERM and SIGINT go to the command, which may then end by
itself. The exit code is the command's; 128 and the number of the signal that ended it.

Invariant: when this process ends, none that descends from it runs: it adopts those whose parents have ended, and kills
what is left. A guard that is killed itself takes the command along. Linux only. Imports nothing of relay_verl, so that
it starts at once and stays small.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Options of prctl(2)."""
KILL_S = 10.0
"""Seconds until a killed process has ended; one that is stuck in the kernel is left."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Run the command of this process's arguments to its end, or to the end of the server."""
    # Orphans of the command become children of this process, not of init: none escapes.
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)

    def forward(number: int, _: FrameType | None) -> None:
        command.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    handle = os.pidfd_open(command.pid)
    # Nothing is ever written to standard input: it is readable once its other end is closed.
    ready, _, _ = select.select([sys.stdin.fileno(), handle], [], [])
    if handle not in ready:
        command.kill()
    code = command.wait()  # before the others: whoever waits for all children takes this one's code
    end_all()
    sys.exit(code if code >= 0 else 128 - code)


def end_all() -> None:
    """Kill all processes that descend from this one."""
    left = psutil.Process().children(recursive=True)
    while left:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        _, stuck = psutil.wait_procs(left, timeout=KILL_S)
        if stuck:
            return
        left = psutil.Process().children(recursive=True)  # what was started, or orphaned, in the meantime


if __name__ == "__main__":
    main()
