"""What the requests have in common that name points of one repository."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from service.model.kinds import JobKind


@dataclass(frozen=True)
class PointsRequest:
    """`recovery_points`: ids of points of one repository, whose id the API finds. `domain`: its name if they are all of one domain."""

    kind: "ClassVar[JobKind]"
    recovery_points: tuple[str, ...]
    repository: str = ""
    domain: str = ""
    host: str | None = None

    @property
    def would_freeze(self) -> bool:
        return False

    def as_document(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind.value, **plain, "recovery_points": list(self.recovery_points)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        known = {field.name: document[field.name] for field in fields(cls) if document.get(field.name) is not None}
        return cls(**known | {"recovery_points": tuple(document["recovery_points"])})
