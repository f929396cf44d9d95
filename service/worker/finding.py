"""One finding of `stillpoint doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    ok = "ok"
    warn = "warn"
    fail = "FAIL"


@dataclass(frozen=True)
class Finding:
    health: Health
    subject: str
    detail: str
    remedy: str | None = None
