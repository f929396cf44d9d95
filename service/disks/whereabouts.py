"""Where the disks of a domain are, held against the overlays that were planned for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.disks.two_views import DiskPositions
from service.hypervisor.guest import Guest
from service.model.intent import Overlay


@dataclass
class Whereabouts:
    """Targets by where their disk is. `live`: what is written now. `saved`: the definition of the next start names the overlay.

    What is written now is what QEMU has open for writing, where libvirt names the file below.
    """

    planned: list[str]
    live: list[str]
    saved: list[str]
    #: On a third file: somebody took another snapshot and our overlay may lie below it, or the disk was taken out.
    elsewhere: list[str]
    #: Of the disks in `live`, those of which libvirt does not know it.
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
