"""The faults, by name. Each one strikes while its job runs, heals what must be healed, and says how long it stood in the way of a thaw."""

from tests.chaos.faults import (
    agent,
    agent_lies,
    backup,
    boundaries,
    copy,
    heal,
    hypervisor,
    merge,
    overlay_target,
    power,
    processes,
    prune,
    restore,
    snapshot_lies,
    storage,
    verify,
)
from tests.chaos.faults.strike import FAULTS, Fault, Plays, Strike

__all__ = [
    "FAULTS",
    "Fault",
    "Plays",
    "Strike",
    "agent",
    "agent_lies",
    "backup",
    "boundaries",
    "copy",
    "heal",
    "hypervisor",
    "merge",
    "overlay_target",
    "power",
    "processes",
    "prune",
    "restore",
    "snapshot_lies",
    "storage",
    "verify",
]
