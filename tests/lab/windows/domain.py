"""A domain with a Windows guest in it, without QEMU: the fake domain's disks and the simulated agent."""

import json
from collections.abc import Sequence

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
        guest_disks = [GuestDisk(f"serial-{target}", (0, 0, 5 + place, 0), target) for place, target in enumerate(seen)]
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

    def filesystems(self) -> list[tuple[str, str, str, list[str]]]:
        reply = json.loads(self.agent_command(json.dumps({"execute": "guest-get-fsinfo"}), -1))
        targets = {volume.name: [self.windows.disks[number].target for number in volume.disks] for volume in self.windows.volumes}
        return [(row["mountpoint"], row["name"], row["type"], targets[row["name"]]) for row in reply["return"]]

    def _asked(self, command: str, timeout_s: int) -> str:
        self._must_run()
        return self._channel.agent_command(command, timeout_s)
