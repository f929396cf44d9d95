"""What a job was about to do, committed before it does it: all that recovery knows when nobody comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.disks.overlays import Overlay


@dataclass(frozen=True)
class DiscardIntent:
    """The point was judged and is being taken back: what the job ends with when that is done."""

    verdict: str
    required: str


@dataclass(frozen=True)
class Intent:
    """`will_freeze`: a freeze may have been sent, and no thaw of ours was answered yet."""

    will_freeze: bool
    overlays: Sequence[Overlay]
    #: `Guest.instance` of the guest that is to be frozen.
    instance: int | None = None
    #: `freeze_lease.window_document`: since when, and for how long at most.
    window: dict[str, Any] | None = None
    discard: DiscardIntent | None = None

    def as_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"will_freeze": self.will_freeze, "overlays": [overlay.as_document() for overlay in self.overlays]}
        if self.instance is not None:
            document["instance"] = self.instance
        if self.window is not None:
            document["window"] = self.window
        if self.discard is not None:
            document["discard"] = {"verdict": self.discard.verdict, "required": self.discard.required}
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "Intent":
        """None: the job had not come so far that it intended anything."""
        found = document or {}
        discard = found.get("discard")
        return cls(
            will_freeze=bool(found.get("will_freeze")),
            overlays=[Overlay.from_document(overlay) for overlay in found.get("overlays", [])],
            instance=found.get("instance"),
            window=found.get("window"),
            discard=DiscardIntent(discard["verdict"], discard["required"]) if discard else None,
        )
