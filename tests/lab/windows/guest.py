"""A real guest under real libvirt whose agent is the simulated Windows one.

What is frozen is the simulator's word: the Linux in the virtual machine goes on writing. Tests of Windows logic ask
`guest.agent` for the truth.
"""

from typing import Any
from xml.etree import ElementTree

from tests.lab.guests import BOOT_TIMEOUT, LabGuest
from tests.lab.options import GuestOptions
from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.relay import RelayAgent
from tests.lab.windows.scenario import Scenario, load
from tests.lab.windows.storage import GuestDisk


def windows_options(*, name: str = "lab-windows", disks: int = 1) -> GuestOptions:
    """Without the stall meters: they would measure what the simulator does not do."""
    return GuestOptions(name=name, disks=disks, agent="relay", meter=None)


class WindowsGuest:
    """`WindowsGuest("healthy-2022").start()`; `play` puts another scenario into the running guest."""

    def __init__(self, scenario: Scenario | str, *, guest: LabGuest | None = None, disks: int = 1) -> None:
        self.guest = guest or LabGuest(windows_options(disks=disks))
        self.scenario = _loaded(scenario)
        self._relay: RelayAgent | None = None
        self._agent: WindowsAgent | None = None

    @property
    def name(self) -> str:
        return self.guest.name

    @property
    def domain(self) -> Any:
        return self.guest.domain

    @property
    def agent(self) -> WindowsAgent:
        """The agent that answers now; raises LookupError before the start."""
        if self._agent is None:
            raise LookupError(f"{self.name} was not started")
        return self._agent

    def start(self) -> "WindowsGuest":
        """Booted, and its agent answering libvirt."""
        self.guest.start_and_wait()
        return self.attach().wait_agent()

    def attach(self) -> "WindowsGuest":
        """Becomes the agent of a guest that runs already, where nobody else is."""
        self._agent = WindowsAgent(self.scenario, disks=guest_disks(self.guest))
        self._relay = RelayAgent(self._agent, self.guest.relay_socket).start()
        return self

    def wait_agent(self, timeout: float = BOOT_TIMEOUT) -> "WindowsGuest":
        self.guest.wait_agent(timeout)
        return self

    def play(self, scenario: Scenario | str) -> WindowsAgent:
        """A fresh agent, thawed, with nothing remembered. Do it while no command is on its way."""
        if self._relay is None:
            raise LookupError(f"{self.name} was not started")
        self.scenario = _loaded(scenario)
        self._agent = WindowsAgent(self.scenario, disks=guest_disks(self.guest))
        self._relay.play(self._agent)
        return self._agent

    def stop(self) -> None:
        """Nobody answers any more; the guest runs on."""
        if self._relay is not None:
            self._relay.stop()
            self._relay = None

    def destroy(self) -> None:
        self.stop()
        self.guest.destroy()


def guest_disks(guest: LabGuest) -> list[GuestDisk]:
    """The disks as Windows would see them: by serial and PCI address."""
    live = ElementTree.fromstring(guest.domain.XMLDesc(0))
    return [_guest_disk(disk) for disk in live.iterfind("devices/disk[@device='disk']")]


def _guest_disk(disk: ElementTree.Element) -> GuestDisk:
    address, target = disk.find("address"), disk.find("target")
    assert address is not None
    assert target is not None
    domain, bus, slot, function = (int(address.get(part, "0"), 0) for part in ("domain", "bus", "slot", "function"))
    return GuestDisk(disk.findtext("serial", ""), (domain, bus, slot, function), target.get("dev", ""))


def _loaded(scenario: Scenario | str) -> Scenario:
    return load(scenario) if isinstance(scenario, str) else scenario
