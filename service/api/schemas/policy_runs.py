"""What became of the runs of a policy."""

from typing import Any

from pydantic import BaseModel, Field

from service.api.schemas.fields import Filter, Instant, Name, Reference
from service.model.schedule import Outcome, Reason


class RunFilter(Filter):
    domain: Name | None = Field(default=None, description="Name or UUID.")
    track: Name | None = Field(default=None, description="The name of a track.")
    outcome: Outcome | None = Field(default=None, description="What became of the run.")
    reason: Reason | None = Field(default=None, description="Why it was missed or skipped.")
    since: Instant | None = Field(default=None, description="Due at this time or later.")
    until: Instant | None = Field(default=None, description="Due before this time.")


class RunOfPolicy(BaseModel):
    due_at: str = Field(description="The instant that the schedule named.")
    track: str = Field(description="The track of the policy.")
    domain: Reference
    outcome: Outcome = Field(description="`queued`: a job was made. `missed`: nobody was there to make it. `skipped`: by a rule.")
    reason: str | None = Field(description="Why it was missed or skipped. Null: a job was made.")
    facts: dict[str, Any]
    job_id: str | None = Field(description="The job that was made. Null: none.")
    decided_at: str = Field(description="When that was decided.")


class RunPage(BaseModel):
    items: list[RunOfPolicy]
    next_cursor: str | None
