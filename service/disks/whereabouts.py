"""Compares the files that a domain's disks are on with the overlays that were planned for the disks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.disks.two_views import DiskPositions
from service.hypervisor.guest import Guest
from service.model.intent import Overlay


@dataclass
class Whereabouts:
    """Names of disks. `live`: the overlay is written now. `saved`: the definition of the next start names the overlay.

    Where libvirt names the file below, the file that QEMU has open for writing counts as written now.
    """

    planned: list[str]
    live: list[str]
    saved: list[str]
    #: On a third file: another client took a snapshot, whose overlay may lie on ours, or removed the disk.
    elsewhere: list[str]
    #: The disks in `live` of which libvirt still names the file below.
    behind: list[Overlay] = field(default_factory=list)

    @classmethod
    def of(cls, guest: Guest, planned: Sequence[Overlay]) -> "Whereabouts":
        named = guest.settled_sources()
        saved = guest.persistent_sources() if guest.is_persistent() else named
        positions = DiskPositions(guest)
        are_on = {overlay.target: positions.is_on(overlay, named.get(overlay.target)) for overlay in planned}
        return cls(
            planned=[overlay.target for overlay in planned],
            live=[target for target, is_on in are_on.items() if is_on],
            saved=[overlay.target for overlay in planned if saved.get(overlay.target) == overlay.path],
            elsewhere=[target for target, is_on in are_on.items() if is_on is None],
            behind=positions.behind,
        )

    @property
    def is_untouched(self) -> bool:
        return not (self.live or self.saved or self.elsewhere)

    @property
    def is_switched(self) -> bool:
        return bool(self.planned) and self.live == self.planned
