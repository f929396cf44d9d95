"""The documents of retention: rules, and the preview of what goes and what stays."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from service.api.schemas import examples_retention as examples
from service.api.schemas.fields import Answer, ChainDepth, KeptPeriods, MergeAt, MinimumAge, Name, Reference, Request
from service.model.retention_rules import MAX_DEPTH

MERGE_AT = (
    "When so many points of a chain stay only because others stand on them, what the others need is merged into them, and the points go. "
    "1: at once. Null: the points wait until the others go."
)
MAX_RATIO = 1_000_000
"""The largest `max_ratio` of a request. A larger number would never make a backup full."""


class NewFullRules(Request):
    """When the next backup has to be full."""

    max_depth: ChainDepth | None = Field(default=MAX_DEPTH, description="Increments that may stand on a full. Null: no limit.")
    max_ratio: Annotated[StrictInt | StrictFloat, Field(gt=0, le=MAX_RATIO, allow_inf_nan=False)] | None = Field(
        default=None, description="Bytes of all increments, in multiples of the full on which they stand. Null: no limit."
    )


class KeepRules(Request):
    """Each rule keeps the newest point of as many periods as it says. 0: the rule does not count."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RULES]})

    keep_last: KeptPeriods = Field(default=0, description="The newest points.")
    keep_hourly: KeptPeriods = Field(default=0, description="Hours that have a point.")
    keep_daily: KeptPeriods = Field(default=0, description="Days that have a point.")
    keep_weekly: KeptPeriods = Field(default=0, description="ISO weeks that have a point.")
    keep_monthly: KeptPeriods = Field(default=0, description="Months that have a point.")
    keep_yearly: KeptPeriods = Field(default=0, description="Years that have a point.")
    minimum_age_s: MinimumAge = Field(default=0, description="A younger point stays in any case.")


class RetentionRules(KeepRules):
    """As a track has them."""

    merge_at: MergeAt | None = Field(default=None, description=MERGE_AT)
    new_full: NewFullRules = Field(default_factory=NewFullRules, description="When the next backup has to be full. Removes nothing.")


class RetentionQuestion(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.QUESTION]})

    policy: Name | None = Field(default=None, description="Only points of this policy: its name or id.")
    track: Name | None = Field(default=None, description="Only points of the tracks of this name.")
    repository: Name | None = Field(default=None, description="Only points in this repository: its name or id.")
    domain: Name | None = Field(default=None, description="Only points of this domain: its name or UUID.")
    rules: RetentionRules | None = Field(
        default=None,
        description="Try these rules on the points of policies, in the place of the rules of their tracks. Nothing is saved. "
        "Null: the rules on record.",
    )
    show: Literal["all", "goes", "stays", "counts"] = Field(
        default="all", description="Which points are listed. `counts`: none. The counts are always of all points."
    )


class RetentionReason(Answer):
    code: str = Field(description="Stable: programs compare this. The name of the rule, or another reason.")
    facts: dict[str, Any]
    text: str = Field(description="The same in words.")


class RetentionPoint(Answer):
    id: str
    domain: Reference
    repository: str | None = Field(description="The id of its repository. Null: it lies beside the disks of its domain.")
    point_in_time_at: str
    size_bytes: int | None
    policy: str | None = Field(description="The name of the policy whose point it is. Null: a person asked for the point.")
    track: str | None = Field(description="The track of that policy.")
    decision: Literal["goes", "stays"] = Field(description="What becomes of it by the rules.")
    may_go_at: str | None = Field(
        description="When it can go at the earliest, as it is known now. Null: points to come or a person decide that."
    )
    reasons: list[RetentionReason] = Field(description="Everything that makes the point stay, or else why it goes.")


class RetentionCount(Answer):
    decision: Literal["goes", "stays"] = Field(description="What becomes of it by the rules.")
    code: str
    points: int = Field(description="Points of which this is the first reason.")
    size_bytes: int


class RetentionPreview(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREVIEW]})

    at: str = Field(description="The time for which it was judged.")
    goes: int = Field(description="Points that would go now.")
    stays: int = Field(description="Points that would stay.")
    goes_bytes: int = Field(description="Bytes of the points that would go.")
    counts: list[RetentionCount] = Field(description="How many points go and stay, by their first reason.")
    points: list[RetentionPoint] = Field(description="Newest first.")
