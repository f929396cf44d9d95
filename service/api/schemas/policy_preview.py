"""What a policy would do, and which domains it has."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples_policy as examples
from service.api.schemas.fields import Reference, Request
from service.model.schedule import Outcome
from service.model.schedule_week import MAX_PLANNED


class PreviewChoice(Request):
    days: int = Field(default=7, ge=1, le=31, description="How many days from now on.")
    limit: int = Field(default=100, ge=1, le=1_000, description="Items of each list. `count` is of all.")


class Why(BaseModel):
    """The parts of a selector that match a domain."""

    name: str | None = Field(description="The name or pattern that matches. Null: the policy does not select by names.")
    labels: dict[str, str] | None = Field(description="The labels that were asked for. Null: none.")
    host: str | None = Field(description="The host that was asked for. Null: any.")
    all_the_rest: bool = Field(description="No other policy selects the domain.")


class DomainOfPolicy(BaseModel):
    id: str
    name: str
    host: str
    labels: dict[str, str]
    why: Why = Field(description="What of the selector has selected the domain.")
    tie: list[str] | None = Field(
        description="Policies that select the domain equally well, this one among them: none of them protects it. Null: this policy has it."
    )


class DomainOfPolicyPage(BaseModel):
    items: list[DomainOfPolicy]
    next_cursor: str | None


class PreviewDomain(BaseModel):
    id: str
    name: str
    host: str
    why: Why = Field(description="What of the selector has selected the domain.")


class PreviewDomains(BaseModel):
    count: int = Field(description="How many there are, also beyond the limit.")
    items: list[PreviewDomain] = Field(description="The first of them.")


class MovedDomain(BaseModel):
    id: str
    name: str
    host: str
    policies: list[str] = Field(description="One: that policy. Several: they are a tie. Empty: no policy.")


class MovedDomains(BaseModel):
    count: int = Field(description="How many there are, also beyond the limit.")
    items: list[MovedDomain] = Field(description="The first of them.")


class PreviewRun(BaseModel):
    domain: Reference
    track: str = Field(description="The track of the policy.")
    due_at: str = Field(description="When the schedule names it.")
    starts_at: str | None = Field(description="When it begins: with its jitter, or after a blackout. Null: it does not begin.")
    outcome: Outcome = Field(description="`queued`: a job is made.")
    reason: str | None = Field(description="Why it does not begin. Null: it does.")


class PreviewRuns(BaseModel):
    count: int = Field(description="How many there are, also beyond the limit.")
    items: list[PreviewRun] = Field(description="The first of them, by the time at which they begin.")
    by_outcome: dict[str, int] = Field(description="How many there are of each outcome.")
    domains_left_out: int = Field(description=f"Domains whose runs are not counted, because there are more than {MAX_PLANNED} runs in all.")


class HourOfLoad(BaseModel):
    hour: str = Field(description="When it begins.")
    starts: int = Field(description="How many runs begin in it.")
    by_track: dict[str, int] = Field(description="The same for each track.")


class PolicyPreview(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREVIEW]})

    policy: str = Field(description="Its name.")
    is_on_record: bool = Field(description="A policy with this name is on record. The preview is then of its change.")
    document: dict[str, Any] = Field(description="The policy with all its fields.")
    begin: str = Field(description="From when on.")
    until: str = Field(description="Until when.")
    domains: PreviewDomains = Field(description="The domains that it would have.")
    takes: MovedDomains = Field(description="Domains that it would have and does not have yet, with the policy that has them now.")
    loses: MovedDomains = Field(description="Domains that it has and would not have any more, with the policy that would have them.")
    outranked: MovedDomains = Field(description="Domains that its selector selects, and that a more specific policy has.")
    ties: MovedDomains = Field(
        description="Domains that no policy would have, as several select them equally well. Such a write is refused."
    )
    runs: PreviewRuns = Field(description="The runs that would be due.")
    load: list[HourOfLoad] = Field(description="How many runs begin in each hour.")
    busiest_hour: HourOfLoad | None = Field(description="The hour in which most runs begin. Null: nothing begins.")
