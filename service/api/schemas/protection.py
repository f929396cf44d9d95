"""The documents of the list of protection."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples_protection as examples
from service.api.schemas.fields import Answer, Filter, Flag, HostName, Name, Reference
from service.model.copy_standing import CopyFault
from service.model.immutability import Immutability
from service.model.protection import ProtectionState
from service.model.protection_view import Part
from service.model.repository import ProofKind, RepositoryState
from service.model.verdict import Verdict


class ProtectionFilter(Filter):
    state: ProtectionState | None = Field(default=None, description="Only domains in this state.")
    policy: Name | None = Field(default=None, description="Only domains that have this policy: its name or id.")
    host: HostName | None = None
    repository: Name | None = Field(default=None, description="Only domains that are backed up to it: its name or id.")
    proof_too_old: Flag | None = Field(default=None, description="`true`: only domains whose newest proof is older than promised.")

    def has(self, state: ProtectionState, is_proof_too_old: bool) -> bool:
        return self.state in (None, state) and self.proof_too_old in (None, is_proof_too_old)


class PointOfProtection(BaseModel):
    id: str
    point_in_time_at: str
    verdict: Verdict
    repository_id: str | None = Field(description="Null: the point lies beside the disks of the guest.")


class ReasonAnswer(BaseModel):
    code: str
    sentence: str = Field(description="The reason in words, with times such as `since Tuesday`. The facts have the exact values.")
    remedy: str
    facts: dict[str, Any]


class ProofAnswer(BaseModel):
    kind: ProofKind = Field(description="The proof that the policy promises.")
    max_age_s: float = Field(description="How old the newest proof may be.")
    proven_at: str | None = Field(description="When a point with the promised verdict last had the proof. Null: never.")
    too_old_at: str = Field(description="When the newest proof will be too old, or since when it is.")


class DomainProtection(Answer):
    domain: Reference
    host: str
    state: ProtectionState = Field(
        description="`protected`. `waiting`: the promise is new, and its first point is to come. `at_risk`: the promise holds, and the "
        "last run failed, or the promise breaks before the next run can mend that. `broken`. `paused`: the policy is. `tie`: two policies "
        "select the domain equally well, so none of them has it. `unprotected`: no policy selects it."
    )
    policy: str | None = Field(description="The name of the policy that has the domain. Null: none has.")
    newest_kept: PointOfProtection | None = Field(description="The newest point that keeps the promise. Null: there is none.")
    newest_good: PointOfProtection | None = Field(description="The newest point that can be restored, whatever its verdict.")
    broken_at: str | None = Field(description="When the promise was broken, or will be if no run succeeds. Null: nothing ages.")
    next_run_at: str | None = Field(description="When the next run for it begins. In the past: nobody has begun it. Null: none is to come.")
    broken_part: Part | None = Field(description="The part of the promise that is broken. Null: none is.")
    reason: ReasonAnswer | None = Field(description="The one reason, the deepest first. Null: the domain is protected.")
    proof: ProofAnswer | None = Field(description="Null: the policy promises no proof.")
    links: dict[str, str]


class LastJobAnswer(BaseModel):
    job_id: str = Field(description="The job. It may have been removed because of its age.")
    kind: str
    state: str
    at: str = Field(description="When it ended. Of a job that has not ended: when it began or was made.")
    error_code: str | None = Field(description="Null: it succeeded, or has not ended.")
    in_a_row: int = Field(description="How many jobs of the kind in a row ended with this code.")
    since: str | None = Field(description="When the first of them ended.")


class RepositoryOfProtection(BaseModel):
    id: str
    name: str
    state: RepositoryState
    free_bytes: int | None
    full_at: str | None = Field(description="When it will be full, by the free space of the last 14 days. Null: it does not fill up.")


class CopyOfProtection(BaseModel):
    id: str
    name: str
    repository: Reference = Field(description="What it is a copy of.")
    faults: list[CopyFault] = Field(
        description="`points_wait`: a point that a policy wants there waits for longer than a day. `lock_not_kept`: the store keeps no "
        "locks. `proof_too_old`: nobody attacked a sentinel lately. `points_damaged`: points there are not what was sent."
    )
    newest_point_at: str | None = Field(description="The point in time of the newest whole point there.")
    waiting: int = Field(description="Points that a policy wants there, and that are not there.")
    waiting_since: str | None = Field(description="Since when the first of them could be sent.")
    damaged: int = Field(description="Points there that are not what was sent.")
    immutability: Immutability = Field(description="What the last attack on a sentinel has shown.")
    proven_at: str | None = Field(description="When the sentinel was attacked last.")
    locked_until: str | None = Field(description="The end of the last lock that the store shows.")


class PromiseAnswer(BaseModel):
    rpo_s: float | None = Field(description="How old the newest good point may be. Null: nothing is promised of that.")
    verdict: Verdict | None = Field(description="How consistent it must be. Null: nothing is promised of that.")
    proof: dict[str, Any] | None = Field(description="The `kind` of proof, and `max_age_s`. Null: none is promised.")


class OneDomainProtection(DomainProtection):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.ONE_DOMAIN]})

    as_of: str
    promise: PromiseAnswer | None = Field(description="What the policy promises. Null: no policy has the domain.")
    covered_since: str | None = Field(description="When the policy began to have the domain. The promise does not look back further.")
    usually_takes_s: float | None = Field(description="How long the last job took that made a point. Null: none has succeeded yet.")
    last_jobs: list[LastJobAnswer] = Field(description="Jobs that make points or test them: what failed last, and what has not ended.")
    repositories: list[RepositoryOfProtection] = Field(description="The repositories that the policy backs up to.")


class ProtectionSummary(BaseModel):
    domains: int = Field(description="Domains that fit the filters, whatever their state.")
    protected: int = Field(description="How many are protected.")
    waiting: int = Field(description="How many wait for the first point of a new promise.")
    at_risk: int = Field(description="How many are at risk.")
    broken: int = Field(description="How many have a broken promise.")
    paused: int = Field(description="How many have a paused policy.")
    tie: int = Field(description="How many are selected by two policies equally well.")
    unprotected: int = Field(description="How many nobody asked to protect.")
    proofs_too_old: int = Field(description="Domains whose newest proof is older than promised.")
    repositories_that_fill_up: int = Field(description="Repositories that have a date at which they will be full.")


class ProtectionPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.PROTECTION]})

    as_of: str
    summary: ProtectionSummary = Field(description="Counts of all pages.")
    repositories: list[RepositoryOfProtection] = Field(description="The repositories that fill up, or that have a fault.")
    copies: list[CopyOfProtection] = Field(description="The copies of repositories that have a fault.")
    items: list[DomainProtection]
    next_cursor: str | None
