"""The faults, by name. Each one strikes while its job runs, heals what must be healed, and says how long it stood in the way of a thaw."""

from tests.chaos.faults import agent, agent_lies, boundaries, hypervisor, overlay_target, power, processes, snapshot_lies, storage
from tests.chaos.faults.strike import FAULTS, Fault, Strike

__all__ = [
    "FAULTS",
    "Fault",
    "Strike",
    "agent",
    "agent_lies",
    "boundaries",
    "hypervisor",
    "overlay_target",
    "power",
    "processes",
    "snapshot_lies",
    "storage",
]
