"""Whether a guest writes, seen from the host. A frozen filesystem sends no writes to its disk."""

import time
from collections.abc import Collection

from service.errors import StillpointError
from service.hypervisor.guest import Guest
from service.model.inventory import Survey

PAUSE_S = 0.1
"""Seconds between two looks at the guest's writes."""


def freezable_disks(survey: Survey) -> frozenset[str]:
    """The disks under every filesystem that the agent may have frozen."""
    return frozenset(disk for filesystem in survey.filesystems or () if filesystem.is_freezable for disk in filesystem.disks)


def writes_to_all(guest: Guest, targets: Collection[str], within_s: float) -> bool | None:
    """True as soon as the guest was seen to write to each of the disks; None: libvirt does not report writes.

    False proves nothing, because an idle guest writes seldom. A filesystem in use is written to every few seconds.
    """
    deadline = time.monotonic() + within_s
    try:
        before = {target: guest.bytes_written(target) for target in targets}
        while True:
            time.sleep(PAUSE_S)
            if all(guest.bytes_written(target) > before[target] for target in targets):
                return True
            if time.monotonic() > deadline:
                return False
    except StillpointError:
        return None
