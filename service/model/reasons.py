"""Why a verdict is what it is: one fact each."""

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    lifts = "lifts"
    lowers = "lowers"
    notes = "notes"


@dataclass(frozen=True)
class Reason:
    code: str
    effect: Effect
    detail: str

    def as_document(self) -> dict[str, str]:
        return {"code": self.code, "effect": self.effect.value, "detail": self.detail}


def lifts(code: str, detail: str) -> Reason:
    return Reason(code, Effect.lifts, detail)


def lowers(code: str, detail: str) -> Reason:
    return Reason(code, Effect.lowers, detail)


def notes(code: str, detail: str) -> Reason:
    return Reason(code, Effect.notes, detail)
