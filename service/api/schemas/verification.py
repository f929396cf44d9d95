"""The documents of verification by plan."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from service.api.schemas import examples_verification as examples
from service.api.schemas.fields import Answer, Rate, Request, WholeNumber
from service.api.schemas.job_requests import Checks
from service.model.blackouts import Weekday
from service.model.requests import VerifyRequest
from service.model.time_zones import names
from service.model.verification_budget import WHOLE_DAY, Budget
from service.model.verification_plan import Why
from service.records.verification import Outcome

MAX_BYTES_PER_DAY = 1 << 60
"""Bytes, an exbibyte. More is refused, as it is a mistake."""
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_END = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"


def _is_known(zone: str) -> str:
    if zone not in names():
        raise ValueError("give the IANA name of a time zone, such as Europe/Berlin")
    return zone


def _each_day_once(days: list[Weekday]) -> list[Weekday]:
    if len(set(days)) != len(days):
        raise ValueError("every day may be named once only")
    return days


class VerificationBudget(Request):
    """What verification by plan may cost."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BUDGET]}, validate_by_name=True)

    bytes_per_day: WholeNumber | None = Field(
        default=None,
        ge=1,
        le=MAX_BYTES_PER_DAY,
        description="Bytes that may be read in a day of the time zone. Null: no limit but the hours.",
    )
    days: Annotated[list[Weekday], AfterValidator(_each_day_once)] = Field(
        default_factory=lambda: list(Weekday), min_length=1, max_length=7, description="The days on which the hours begin."
    )
    begin: str = Field(
        default=WHOLE_DAY[0], alias="from", pattern=_TIME, description="When a read may begin, by the clock of the time zone."
    )
    end: str = Field(
        default=WHOLE_DAY[1],
        alias="to",
        pattern=_END,
        description="When it should have ended. A time before `from` is one of the next day. A read that runs then is not broken off.",
    )
    time_zone: Annotated[str, AfterValidator(_is_known)] = Field(default="UTC", max_length=64, description="The IANA name of a time zone.")
    checks: Checks = Field(
        default_factory=lambda: list(VerifyRequest.checks), description="As in a job of the kind `verify`. The bytes are read in any case."
    )
    rate_limit_bytes: Rate | None = None

    def as_budget(self) -> Budget:
        """Raises ValueError for hours that end where they begin."""
        return Budget.from_document(
            {
                "bytes_per_day": self.bytes_per_day,
                "days": [day.value for day in Weekday if day in self.days],
                "from": self.begin,
                "to": self.end,
                "time_zone": self.time_zone,
                "checks": [kind.value for kind in VerifyRequest.checks if kind in self.checks],
                "rate_limit_bytes": self.rate_limit_bytes,
            }
        )


def _has_hours(budget: VerificationBudget | None) -> VerificationBudget | None:
    if budget is not None and budget.begin == budget.end:
        raise ValueError("from and to are the same; 00:00 to 24:00 is a whole day")
    return budget


class RepositoryChange(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"verification": examples.BUDGET}]})

    verification: Annotated[VerificationBudget | None, AfterValidator(_has_hours)] = Field(
        description="The budget of verification by plan. Null: nothing is verified by plan."
    )


class PlannedRead(Answer):
    recovery_point: str = Field(description="The id of the point.")
    domain_id: str = Field(description="The id of its domain.")
    why: Why = Field(
        description="`promised`: a policy promises a proof, which becomes too old soon. `damaged`: something has changed since the damage "
        "was found. `missing`: the bytes were never proven. `old`: the proof is old."
    )
    cost_bytes: int = Field(
        description="What it is expected to read: every stored byte of the chain, once for its checksum and once as the guest sees it."
    )
    due_at: str | None = Field(description="When the promise breaks. Null: nothing is promised, or not soon.")
    proven_at: str | None = Field(description="When its bytes were last proven, also as a part of the chain of another point. Null: never.")


class ReadByPlan(Answer):
    number: int = Field(description="1 for the first of the repository.")
    recovery_point: str = Field(description="The id of the point.")
    domain_id: str = Field(description="The id of its domain.")
    job_id: str | None = Field(description="Null: the point could not be read any more, and no job was made.")
    why: Why = Field(description="As in `next`.")
    begun_at: str = Field(description="When the job was made.")
    cost_bytes: int = Field(description="What it was expected to read.")
    read_bytes: int | None = Field(description="What it has read. Null: it has not ended, or that is not known.")
    took_ms: int | None = Field(description="From the first attempt of the job to its end, in milliseconds. Null: it has not ended.")
    outcome: Outcome | None = Field(
        description="`good`, `healed` (it was damaged, and is good now), `damaged`, `failed` (that says nothing of the point) or `refused` "
        "(no job was made). Null: it has not ended."
    )


class VerificationAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.VERIFICATION]})

    budget: dict[str, Any] | None = Field(description="As it was set: see `PATCH /api/v1/repositories/{repository}`. Null: there is none.")
    may_begin: bool = Field(description="A read may begin now, if one is planned that today's bytes are enough for.")
    left_bytes: int | None = Field(
        description="The bytes that are left today. Below 0: a read that cost more than a day is still to be paid for. Null: no limit."
    )
    spent_today_bytes: int = Field(description="What was read by plan today. A read that has not ended counts as expected.")
    next: list[PlannedRead] = Field(description="What is read next, in this order, up to 20 points.")
    runs: list[ReadByPlan] = Field(description="The newest 20 reads by plan, newest first.")
