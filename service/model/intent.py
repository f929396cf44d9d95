"""What a job intends to do. It is committed before the job acts, because recovery knows nothing else if the worker dies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.clock import rfc3339
from service.errors import RecordUnreadable, VersionUnknown
from service.model.file_identity import FileIdentity

VERSION = 1
"""The version of the document. Documents from before versions have no version, and otherwise the same form."""


@dataclass(frozen=True)
class Overlay:
    """`base` becomes the recovery point. The guest writes to `path` from the point in time on.

    `made`: the identity of the file at `path`. None: the file is only planned, or the worker died before it recorded the identity.
    """

    target: str
    base: str
    base_format: str
    path: str
    virtual_size: int
    made: FileIdentity | None = None

    def is_in_use(self, source: str | None) -> bool | None:
        """Whether a disk on the file `source` uses this overlay. None: the file is neither this overlay nor its base.

        Then another overlay may stand on this overlay.
        """
        if source == self.path:
            return True
        return False if source == self.base else None

    def as_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "target": self.target,
            "base": self.base,
            "base_format": self.base_format,
            "overlay": self.path,
            "virtual_size": self.virtual_size,
        }
        return document | {"made": self.made.as_document()} if self.made is not None else document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Overlay":
        made = FileIdentity.from_document(document.get("made"))
        return cls(document["target"], document["base"], document["base_format"], document["overlay"], document["virtual_size"], made)


@dataclass(frozen=True)
class WindowIntent:
    """`since`: just before freeze is sent, by the clock of the database. `limit_ms` later the guest must be thawed."""

    since: datetime
    limit_ms: float

    def as_document(self) -> dict[str, Any]:
        return {"since": rfc3339(self.since), "limit_ms": self.limit_ms}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "WindowIntent":
        return cls(datetime.fromisoformat(document["since"]), document["limit_ms"])


@dataclass(frozen=True)
class DiscardIntent:
    """The point was judged and is being discarded. The fields are for the error that ends the job then."""

    verdict: str
    required: str


@dataclass(frozen=True)
class Intent:
    """`will_freeze`: a freeze may have been sent, and no thaw of ours was answered yet."""

    will_freeze: bool = False
    overlays: Sequence[Overlay] = ()
    #: `Guest.instance` of the guest that is to be frozen.
    instance: int | None = None
    window: WindowIntent | None = None
    discard: DiscardIntent | None = None
    #: Checkpoints of ours whose record libvirt lost for the snapshot of a domain that is off: the XML of each by its name.
    aside: Mapping[str, str] | None = None
    #: What else the kind of the job has begun, by the kind's own module: a JSON object, which the kind reads and versions itself.
    own: Mapping[str, Any] | None = None

    def as_document(self) -> dict[str, Any]:
        overlays = [overlay.as_document() for overlay in self.overlays]
        document: dict[str, Any] = {"v": VERSION, "will_freeze": self.will_freeze, "overlays": overlays}
        if self.instance is not None:
            document["instance"] = self.instance
        if self.window is not None:
            document["window"] = self.window.as_document()
        if self.discard is not None:
            document["discard"] = {"verdict": self.discard.verdict, "required": self.discard.required}
        if self.aside:
            document["aside"] = dict(self.aside)
        if self.own is not None:
            document["own"] = dict(self.own)
        return document

    @classmethod
    def freeze_of(cls, document: dict[str, Any] | None) -> "Intent":
        """Only the fields that a thaw needs. They are the same in every version."""
        stored = document or {}
        return cls(will_freeze=bool(stored.get("will_freeze")), instance=stored.get("instance"))

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "Intent":
        """`document` None: the job had no intent yet. Raises VersionUnknown, RecordUnreadable."""
        stored = document or {}
        if stored.get("v", VERSION) > VERSION:
            raise VersionUnknown(what="intent", version=stored["v"], known=VERSION)
        try:
            return cls._from_known(stored)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordUnreadable(what="intent", reason=f"{type(error).__name__}: {error}") from error

    @classmethod
    def _from_known(cls, document: dict[str, Any]) -> "Intent":
        discard, window = document.get("discard"), document.get("window")
        return cls(
            will_freeze=bool(document.get("will_freeze")),
            overlays=tuple(Overlay.from_document(overlay) for overlay in document.get("overlays", [])),
            instance=document.get("instance"),
            window=WindowIntent.from_document(window) if window else None,
            discard=DiscardIntent(discard["verdict"], discard["required"]) if discard else None,
            aside=document.get("aside"),
            own=document.get("own"),
        )
