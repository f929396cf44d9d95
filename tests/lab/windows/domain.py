"""A domain with a Windows guest in it, without QEMU: the fake domain's disks and the simulated agent."""

import json
from collections.abc import Sequence

from tests.fakes.agent import pci_of
from tests.fakes.domain import FakeDisk, FakeDomain
from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.clock import Clock
from tests.lab.windows.in_process import AgentChannel
from tests.lab.windows.scenario import Scenario
from tests.lab.windows.storage import GuestDisk


class WindowsDomain(FakeDomain):
    """Stands behind DomainHandle. Each disk of type `disk` is one that Windows sees, in the same order."""

    def __init__(self, name: str, disks: Sequence[FakeDisk], scenario: Scenario, *, clock: Clock | None = None) -> None:
        super().__init__(name, disks)
        seen = [disk.target for disk in disks if disk.device == "disk"]
        guest_disks = [GuestDisk(f"serial-{target}", _pci(target), target) for target in seen]
        self.windows = WindowsAgent(scenario, clock=clock, disks=guest_disks)
        self._channel = AgentChannel(self.windows)

    def agent_command(self, command: str, timeout_s: int) -> str:
        name = json.loads(command)["execute"]
        reply = self._call(name, lambda: self._asked(command, timeout_s))
        return self._nonsense[name].popleft() if self._nonsense[name] else reply

    def snapshot_create(self, xml: str, flags: int) -> None:
        # What the fake remembers as frozen at the point in time is what volsnap held, and not what the agent says.
        self.agent.frozen = {disk.target for disk in self.windows.disks} if self.windows.holds_writes() else set()
        super().snapshot_create(xml, flags)

    def _asked(self, command: str, timeout_s: int) -> str:
        self._must_run()
        return self._channel.agent_command(command, timeout_s)


def _pci(target: str) -> tuple[int, int, int, int]:
    place = pci_of(target)
    return place["domain"], place["bus"], place["slot"], place["function"]
