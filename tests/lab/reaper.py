"""Starts a daemon, buries its orphans, and starts it again when it was killed, as systemd would.

libvirt's guests are daemons, so whoever is process 1 must collect them when they end; until then libvirt believes that they live. In a
container process 1 may be slow at that or never do it, and destroying a guest then takes seconds or fails.
"""

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while _was_killed(subprocess.Popen(sys.argv[1:])):
        pass


def _was_killed(daemon: "subprocess.Popen[bytes]") -> bool:
    """When it has ended."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.kill(daemon.pid, signal.SIGTERM))
    while (ended := os.wait())[0] != daemon.pid:
        pass
    daemon.returncode = os.waitstatus_to_exitcode(ended[1])
    return daemon.returncode == -signal.SIGKILL


if __name__ == "__main__":
    main()
