"""One check of a preflight: passed, or what stands in the way and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CheckStatus(StrEnum):
    passed = "pass"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Check:
    code: str
    status: CheckStatus
    detail: str
    remedy: str | None = None

    def as_document(self) -> dict[str, Any]:
        return {"code": self.code, "status": self.status.value, "detail": self.detail, "remedy": self.remedy}


def passed(code: str, detail: str) -> Check:
    return Check(code, CheckStatus.passed, detail)


def warned(code: str, detail: str, remedy: str) -> Check:
    return Check(code, CheckStatus.warn, detail, remedy)


def failed(code: str, detail: str, remedy: str) -> Check:
    return Check(code, CheckStatus.fail, detail, remedy)
