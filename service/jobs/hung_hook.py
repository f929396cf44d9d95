"""Why a guest does not answer its thaw: it is frozen, or its agent waits for an fsfreeze hook that does not end.

The agent runs the hook before it freezes and after it has thawed, without a limit, and answers nobody meanwhile. Then nothing is frozen,
and the guest writes on: the host sees that. A frozen filesystem writes nothing.
"""

import time
from collections.abc import Collection

from service.errors import StillpointError
from service.hypervisor.guest import Guest
from service.jobs.attempt import Attempt
from service.model.verdict import HookState

WATCH_S = 15.0
"""Filesystems that are in use at all are written to within it: a journal is committed every few seconds."""
PAUSE_S = 0.25


def disks_that_go_on(guest: Guest, attempt: Attempt) -> tuple[str, ...]:
    """The disks under every filesystem that the agent may have frozen, if the guest has a hook and writes to all of them; else none."""
    found = attempt.found
    if found.is_windows or found.hook is HookState.absent:
        return ()
    targets = {disk for filesystem in found.filesystems or () if filesystem.is_freezable for disk in filesystem.disks}
    return tuple(sorted(targets)) if targets and _writes_to_all(guest, targets) else ()


def _writes_to_all(guest: Guest, targets: Collection[str]) -> bool:
    deadline = time.monotonic() + WATCH_S
    try:
        before = {target: guest.bytes_written(target) for target in targets}
        while True:
            time.sleep(PAUSE_S)
            if all(guest.bytes_written(target) > before[target] for target in targets):
                return True
            if time.monotonic() > deadline:
                return False
    except StillpointError:
        return False
