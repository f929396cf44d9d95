"""Why a guest does not answer its thaw: it is frozen, or its agent waits for an fsfreeze hook that does not end.

The agent runs the hook before the freeze and after the thaw, without a time limit, and does not answer meanwhile. Nothing is frozen then,
so the guest writes, and the host sees the writes. A frozen filesystem writes nothing.
"""

from service.freeze.seen_writing import freezable_disks, writes_to_all
from service.hypervisor.guest import Guest
from service.model.inventory import Survey
from service.model.verdict import HookState

WATCH_S = 15.0
"""Seconds that the host watches for writes. A filesystem in use commits its journal every few seconds. Else the guest counts as frozen."""


def disks_that_go_on(guest: Guest, survey: Survey) -> tuple[str, ...]:
    """The disks under every filesystem that the agent may have frozen, if the guest has a hook and writes to all. Otherwise none."""
    if survey.is_windows or survey.hook is HookState.absent:
        return ()
    targets = freezable_disks(survey)
    return tuple(sorted(targets)) if targets and writes_to_all(guest, targets, WATCH_S) else ()
