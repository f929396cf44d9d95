"""Where the disks of a domain are, held against the overlays that were planned for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.hypervisor.guest import Guest
from service.model.intent import Overlay


@dataclass
class Whereabouts:
    """Targets by where their disk is. `live`: what is written now. `saved`: the definition of the next start names the overlay."""

    planned: list[str]
    live: list[str]
    saved: list[str]
    #: On a third file: somebody took another snapshot and our overlay may lie below it, or the disk was taken out.
    elsewhere: list[str]

    @classmethod
    def of(cls, guest: Guest, planned: Sequence[Overlay]) -> "Whereabouts":
        live = guest.settled_sources()
        saved = guest.persistent_sources() if guest.is_persistent() else live
        return cls(
            planned=[overlay.target for overlay in planned],
            live=[overlay.target for overlay in planned if live.get(overlay.target) == overlay.path],
            saved=[overlay.target for overlay in planned if saved.get(overlay.target) == overlay.path],
            elsewhere=[overlay.target for overlay in planned if overlay.is_in_use(live.get(overlay.target)) is None],
        )

    @property
    def is_untouched(self) -> bool:
        return not (self.live or self.saved or self.elsewhere)

    @property
    def is_switched(self) -> bool:
        return bool(self.planned) and self.live == self.planned
