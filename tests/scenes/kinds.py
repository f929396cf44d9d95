"""Kinds of jobs that do not exist, for what must hold for every kind: each a row of the table, and a form of its request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import pytest

from service.errors import StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun
from service.model import kinds, requests
from service.model.kinds import Kind, Lane, Locks
from service.model.lifecycle import PhaseName


@dataclass(frozen=True)
class AnyRequest:
    """What was asked for, as it was asked for."""

    document: Mapping[str, Any]
    host: str | None = None
    would_freeze: bool = False

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(document)

    def as_document(self) -> dict[str, Any]:
        return dict(self.document)


def add_kind(patch: pytest.MonkeyPatch, name: str, lane: Lane, locks: Locks, *, attempts: int = 1) -> Kind:
    make: Any = StrEnum
    named = make("Others", {name: name})[name]
    row = Kind(named, freezes=False, makes_point=False, has_gate=False, locks=locks, lane=lane, attempts=attempts, retryable=True)
    patch.setitem(kinds._TABLE, name, row)
    patch.setitem(requests._TYPES, name, type("Request", (AnyRequest,), {"kind": named}))
    return row


@dataclass
class Carries:
    """A handler: copies something from here to there. `dies`: in the copy, as a worker does."""

    dies: bool = False
    lost: list[LostJob] = field(default_factory=list)

    def run(self, run: JobRun, host: Host) -> Ending:
        with run.phase(PhaseName.prepare):
            run.write({"intent": {"v": 1, "to": "elsewhere"}})
        with run.phase(PhaseName.seal):
            if self.dies:
                raise SystemExit
        return Ending(result={"carried": dict(run.claim.request.as_document())})

    def recover(self, lost: LostJob, host: Host) -> Resolution:
        self.lost.append(lost)
        lost.story.append("What was copied so far is removed.")
        return Resolution(is_tried_again=True)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:
        return Ending(error)
