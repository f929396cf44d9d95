"""What a point on a copy is, and what is asked of a copy. Plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


class CopiedState(StrEnum):
    sending = "sending"
    """A job sends it, or sent a part of it. It does not count."""
    whole = "whole"
    """All of it arrived, and its manifest after the rest."""
    removing = "removing"
    """A job removes it, or removed a part of it. It does not count."""
    damaged = "damaged"
    """A check found that it is not what was sent. The next send sends it again."""


class CopyAction(StrEnum):
    """What a job of a copy does."""

    send = "send"
    """Send the sealed points that are missing there, and lengthen locks."""
    fetch = "fetch"
    """Bring points back into the repository, with those on which they stand."""
    check = "check"
    """Read back what is there, and hold it against the manifests."""
    remove = "remove"
    """Remove what is there: named points, or what the rules of the copy do not keep."""
    prove = "prove"
    """Attack a sentinel, to see whether the store keeps its locks."""


@dataclass(frozen=True)
class CopyWish:
    """Points are to be carried between a repository and a copy of it. `repository`, `copy`: ids, which the API finds by their names.

    `recovery_points` None: all that are missing there, or, of what is there, all. A fetch names points. `rate_limit_bytes` None: that of
    the copy.
    """

    repository: str
    copy: str
    action: CopyAction = CopyAction.send
    recovery_points: tuple[str, ...] | None = None
    rate_limit_bytes: int | None = None
    domain: str = ""
    host: str | None = None

    @property
    def would_freeze(self) -> bool:
        return False

    def wish_as_document(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        points = list(self.recovery_points) if self.recovery_points is not None else None
        return {**plain, "action": self.action.value, "recovery_points": points}

    @classmethod
    def wish_in(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that the document has. Raises KeyError, ValueError."""
        known = {field.name: document[field.name] for field in fields(cls) if document.get(field.name) is not None}
        points = document.get("recovery_points")
        return known | {
            "action": CopyAction(document.get("action") or CopyAction.send),
            "recovery_points": tuple(points) if points is not None else None,
        }
