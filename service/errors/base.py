"""The base of all errors."""

from collections.abc import Mapping
from typing import Any, ClassVar


class StillpointError(Exception):
    """Base of all errors. Subclasses give templates. The keyword arguments fill the templates and stay readable as `facts`."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong inside Stillpoint"
    detail_template: ClassVar[str] = "An unexpected error happened."
    remedy_template: ClassVar[str] = "Find the error in the service's log, and report the error."

    def __init__(self, **facts: Any) -> None:
        self.facts: Mapping[str, Any] = facts
        super().__init__(self.detail)

    @property
    def detail(self) -> str:
        """What was found."""
        return self.detail_template.format(**self.facts)

    @property
    def remedy(self) -> str:
        """What the reader can do."""
        return self.remedy_template.format(**self.facts)

    def as_document(self) -> dict[str, Any]:
        """The error as it stands in a job row and, with a status added, in a problem body."""
        return {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }
