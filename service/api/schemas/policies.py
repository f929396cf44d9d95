"""The documents of policies. What a request holds is read by `service.model.backup_policy`, which tells all faults with their places.

The classes of the request describe it. A field that may be left out may be null, too.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, StrictBool, model_validator

from service.api.schemas import examples_policy as examples
from service.api.schemas.fields import Answer, Disks, Filter, HostName, LabelKey, LabelValue, Latency, Name, Rate, Request, WholeNumber
from service.api.schemas.job_requests import kind_of
from service.api.schemas.jobs import FreezeRequest
from service.api.schemas.retention import MERGE_AT
from service.model import requests
from service.model.backup_policy import (
    MAX_BLACKOUTS,
    MAX_DESCRIPTION,
    MAX_PROMISED_S,
    MAX_TRACKS,
    MIN_PROMISED_S,
    PROMISED_PROOFS,
)
from service.model.blackouts import Weekday
from service.model.policy import OnShortfall
from service.model.repository import Compare, Level
from service.model.request_limits import DEMANDABLE, MAX_LABELS, MAX_TRANSFERS
from service.model.retention_rules import MAX_AGE_S, MAX_DEPTH, MAX_KEPT, MAX_MERGE_AT
from service.model.schedule_rule import MAX_CATCH_UP_S, MAX_JITTER_S, CatchUp
from service.model.selectors import MAX_SELECTED
from service.model.track import MAX_COPIES, MAX_POLICY_NAME, NAME
from service.records.policy_changes import Change

MAX_APPLIED = 500
"""Policies in one request. More are refused."""


def _or_null(schema: dict[str, Any]) -> None:
    for name, field in schema["properties"].items():
        inner = {key: field[key] for key in field if key not in ("description", "default", "title")}
        if name not in schema.get("required", ()) and {"type": "null"} not in inner.get("anyOf", ()) and inner != {"type": "null"}:
            kept = {key: field[key] for key in ("description", "default", "title") if key in field}
            schema["properties"][name] = {"anyOf": [inner, {"type": "null"}], **kept}


class Part(Request):
    model_config = ConfigDict(json_schema_extra=_or_null)


PolicyName = Annotated[str, Field(max_length=MAX_POLICY_NAME, pattern=f"^{NAME}$")]
Text = Annotated[str, Field(min_length=1, max_length=255)]
Zone = Annotated[Text, Field(description="The IANA name, such as `Europe/Berlin`, or `UTC`.")]
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
EndOfDay = Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
Periods = Annotated[WholeNumber, Field(ge=0, le=MAX_KEPT)]
Seconds = Annotated[WholeNumber, Field(ge=MIN_PROMISED_S, le=MAX_PROMISED_S)]
AtOnce = Annotated[WholeNumber, Field(ge=1, le=MAX_TRANSFERS)]
_SOME = Field(min_length=1, max_length=MAX_SELECTED, json_schema_extra={"uniqueItems": True})
_DAYS = Field(min_length=1, max_length=7, json_schema_extra={"uniqueItems": True})
_OF_LABELS = Field(min_length=1, max_length=MAX_LABELS, json_schema_extra={"additionalProperties": False})
Verdicts = Literal["crash", "filesystem", "application_unverified", "application"]
assert Verdicts.__args__ == DEMANDABLE  # type: ignore[attr-defined]  # a Literal has to be written out


class PolicySelector(Part):
    """A domain has to match all that is given. Of several policies the most specific one has the domain."""

    names: Annotated[list[Name], _SOME] | None = Field(
        default=None,
        description="Names, or patterns with `*`, `?` and `[...]`. One of them has to match. Case counts.",
    )
    labels: Annotated[dict[LabelKey, LabelValue], _OF_LABELS] | None = Field(
        default=None,
        description="The domain has all of these labels. `PUT /api/v1/domains/{domain}/labels` sets them.",
    )
    hosts: Annotated[list[HostName], _SOME] | None = Field(default=None, description="The domain is on one of these hosts.")
    all_the_rest: StrictBool = Field(default=False, description="Alone: every domain that no other policy selects.")


class PolicyFreeze(FreezeRequest):
    model_config = ConfigDict(json_schema_extra=_or_null)


class PointOfTrack(Part):
    leave_out: Disks | None = Field(default=None, description="Targets of disks that are not taken. A domain need not have them.")
    freeze: PolicyFreeze = Field(default_factory=PolicyFreeze, description="As in `POST /api/v1/jobs`.")
    required_verdict: Verdicts | None = Field(default=None, description="As in `POST /api/v1/jobs`.")
    on_shortfall: OnShortfall = Field(default=OnShortfall.keep, description="As in `POST /api/v1/jobs`.")


class BackupOfTrack(PointOfTrack):
    kind: kind_of(requests.BackupRequest)  # type: ignore[valid-type]  # one value of an enumeration, which the table of kinds names
    repository: Name = Field(description="Name or id of a registered repository.")
    level: Level = Field(default=Level.auto, description="As in `POST /api/v1/jobs`.")
    compress: StrictBool = Field(default=False, description="As in `POST /api/v1/jobs`.")
    compare: Compare = Field(default=Compare.copied, description="As in `POST /api/v1/jobs`.")
    rate_limit_bytes: Rate | None = None
    impact_limit_ms: Latency | None = Field(default=None, description="As in `POST /api/v1/jobs`.")


class SnapshotOfTrack(PointOfTrack):
    kind: kind_of(requests.SnapshotRequest)  # type: ignore[valid-type]


class TrackSchedule(Part):
    cron: Text = Field(description="Five fields: minute, hour, day of the month, month, day of the week.")
    time_zone: Zone
    jitter_s: WholeNumber = Field(
        default=0,
        ge=0,
        le=MAX_JITTER_S,
        description="Each run begins up to this many seconds later: another number for each domain and night.",
    )
    catch_up: CatchUp = Field(
        default=CatchUp.run,
        description="What becomes of a run whose time has passed while the service was away. `run`: the newest one is made up for, "
        "and a run that falls into a blackout waits for its end. `skip`: neither.",
    )
    catch_up_within_s: WholeNumber = Field(default=86_400, ge=0, le=MAX_CATCH_UP_S, description="How late a run may begin.")


class NewFullRule(Part):
    max_depth: Annotated[WholeNumber, Field(ge=1, le=MAX_KEPT)] | None = Field(
        default=MAX_DEPTH, description="Increments above a full. The next backup is full. Null: no limit."
    )
    max_ratio: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="The bytes of all increments, in multiples of the full. Null: no limit."
    )


class TrackRetention(Part):
    """How many periods have a point that stays. All 0: every point stays."""

    keep_last: Periods = Field(default=0, description="The newest points, each of them.")
    keep_hourly: Periods = Field(default=0, description="The newest point of each of so many hours.")
    keep_daily: Periods = Field(default=0, description="The newest point of each of so many days.")
    keep_weekly: Periods = Field(default=0, description="The newest point of each of so many weeks.")
    keep_monthly: Periods = Field(default=0, description="The newest point of each of so many months.")
    keep_yearly: Periods = Field(default=0, description="The newest point of each of so many years.")
    minimum_age_s: WholeNumber = Field(default=0, ge=0, le=MAX_AGE_S, description="A younger point stays in any case.")
    merge_at: Annotated[WholeNumber, Field(ge=1, le=MAX_MERGE_AT)] | None = Field(default=None, description=MERGE_AT)
    new_full: NewFullRule = Field(default_factory=NewFullRule, description="When the next backup has to be full.")


class PolicyTrack(Part):
    name: PolicyName
    job: BackupOfTrack | SnapshotOfTrack = Field(description="What is done for each domain.")
    schedule: TrackSchedule = Field(description="When it is done.")
    retention: TrackRetention | None = Field(default=None, description="How long its points stay. Null: until they are removed by hand.")
    copies: Annotated[list[Name], Field(min_length=1, max_length=MAX_COPIES, json_schema_extra={"uniqueItems": True})] | None = Field(
        default=None,
        description="Names or ids of copies of its repository. Each new point is sent there by itself. Null: to none.",
    )


class PolicyBlackout(Part):
    """A window in which nothing of the policy is begun. An end before the begin is on the next day."""

    days: Annotated[list[Weekday], _DAYS] | None = Field(default=None, description="The days on which a window begins. Null: every day.")
    begin: TimeOfDay = Field(alias="from", description="`HH:MM`.")
    end: EndOfDay = Field(alias="to", description="`HH:MM`, or `24:00`.")
    time_zone: Zone


class PolicyLimits(Part):
    guests_in_window_per_host: AtOnce | None = Field(default=None, description="Guests of a host that are frozen at once. Null: no limit.")
    transfers_per_repository: AtOnce | None = Field(default=None, description="Transfers at once. Null: no limit.")


class PromisedProof(Part):
    kind: Literal[PROMISED_PROOFS] = Field(description="What is proven.")  # type: ignore[valid-type]  # made from an enumeration
    max_age_s: Seconds = Field(description="How old the proof may be.")


class PolicyPromise(Part):
    """What protection holds each domain against."""

    rpo_s: Seconds | None = Field(default=None, description="How old the newest good point may be. Null: nothing is promised.")
    verdict: Verdicts | None = Field(default=None, description="The least verdict of a good point. Null: any.")
    proof: PromisedProof | None = Field(default=None, description="What was proven of a good point. Null: nothing is promised.")


def _with_example(schema: dict[str, Any]) -> None:
    _or_null(schema)
    schema["examples"] = [examples.POLICY_REQUEST]


class PolicyRequest(Part):
    """A policy: which domains it is for, what is done for them and when, and what is promised."""

    model_config = ConfigDict(json_schema_extra=_with_example)

    name: PolicyName
    description: str = Field(default="", max_length=MAX_DESCRIPTION, description="In your own words.")
    paused: StrictBool | None = Field(
        default=None, description="Nothing is begun. The policy keeps its domains. Null: as it is; a new policy is not paused."
    )
    selector: PolicySelector = Field(description="Which domains.")
    tracks: list[PolicyTrack] = Field(min_length=1, max_length=MAX_TRACKS, description="What is done for each domain, and when.")
    blackouts: list[PolicyBlackout] = Field(default_factory=list, max_length=MAX_BLACKOUTS, description="When nothing is begun.")
    limits: PolicyLimits | None = Field(default=None, description="How much is done at once.")
    promise: PolicyPromise | None = Field(default=None, description="What protection holds each domain against.")

    _sent: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, sent: Any, handler: ModelWrapValidatorHandler["PolicyRequest"]) -> "PolicyRequest":
        """An object is taken as it is."""
        if not isinstance(sent, dict):
            return handler(sent)
        kept = cls.model_construct(name="", selector=PolicySelector(), tracks=[])
        kept._sent = sent
        return kept

    @property
    def document(self) -> dict[str, Any]:
        """What was sent."""
        return self._sent


class RevisionChoice(Request):
    revision: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="The revision that you have read. 409 `policy_changed` if the policy was changed since. Left out: any.",
    )


class PolicyFilter(Filter):
    pass


class PolicyAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.POLICY]})

    id: str
    name: str
    paused: bool = Field(description="Nothing is begun. The policy keeps its domains.")
    revision: int = Field(description="One more with each change. Send it with a change of your own.")
    created_at: str
    updated_at: str = Field(description="When it was changed last.")
    document: dict[str, Any] = Field(description="The policy with all its fields, as `POST` takes it.")
    links: dict[str, str]


class PolicyPage(BaseModel):
    items: list[PolicyAnswer]
    next_cursor: str | None


class RemovedPolicy(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.REMOVED_POLICY]})

    id: str
    name: str
    revision: int = Field(description="The last revision that it had.")


class PolicyToApply(Request):
    document: PolicyRequest = Field(description="The policy. One with the same name on record is changed.")
    revision: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="The revision that you have read. 0: there must not be such a policy yet. Left out: any.",
    )


class PolicyToRemove(Request):
    policy: Name = Field(description="Its name or id.")
    revision: int | None = Field(default=None, ge=1, le=2**31 - 1, description="The revision that you have read. Left out: any.")


class ApplyRequest(Request):
    """Policies that are written and removed together, or not at all."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.APPLY_REQUEST]})

    policies: list[PolicyToApply] = Field(default_factory=list, max_length=MAX_APPLIED, description="Policies that are written.")
    remove: list[PolicyToRemove] = Field(default_factory=list, max_length=MAX_APPLIED, description="Policies that are removed.")
    dry_run: StrictBool = Field(default=False, description="Check everything, and write nothing.")


class AppliedPolicy(BaseModel):
    name: str
    change: Change = Field(description="What was done.")
    revision: int = Field(description="Its revision now.")


class ApplyAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.APPLIED]})

    dry_run: bool = Field(description="Nothing was written.")
    policies: list[AppliedPolicy] = Field(description="In the order of the request, and then what was removed.")
