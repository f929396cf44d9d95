"""Requests and answers of the gate."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.schemas import examples_gate
from service.api.schemas.fields import HostName, Labels, Request, WholeNumber
from service.api.schemas.jobs import JobAnswer
from service.model.gate import GateState
from service.model.policy import DEFAULT_FREEZE_TIMEOUT_MS, WINDOWS_HOLD_MS

MAX_HOLD_MS = 600_000
"""Milliseconds. A request for a longer hold is refused."""
DEFAULT_WAIT_MS = 30_000
"""Milliseconds that a call waits for its gate to open, if the request does not say. Then 202 is answered."""
MAX_WAIT_MS = 120_000
"""Milliseconds. A request for a longer wait is refused."""


class QuiesceRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples_gate.QUIESCE_REQUEST]})

    deadline_ms: WholeNumber = Field(
        ge=100,
        le=MAX_HOLD_MS,
        description="How long the guest may be held, from the moment it is frozen. Then it is thawed in any case. "
        f"Windows cannot hold its writes for {WINDOWS_HOLD_MS} or more.",
    )
    timeout_ms: WholeNumber = Field(
        default=DEFAULT_FREEZE_TIMEOUT_MS, ge=1_000, le=600_000, description="How long the guest may take until it is frozen."
    )
    preflush: StrictBool = Field(
        default=True, description="Flush the guest's dirty pages while it still runs, so that the freeze is short."
    )
    fuse: StrictBool = Field(default=True, description="As in the `freeze` of a job: a Linux guest thaws itself if nobody else can.")
    host: HostName | None = Field(default=None, description="Needed only when several hosts have a domain of this name.")
    required_verdict: Literal["crash", "filesystem", "application_unverified", "application"] | None = Field(
        default=None, description="The least verdict that counts as success. Left out: `filesystem`."
    )
    labels: Labels = Field(default_factory=dict)
    wait_ms: WholeNumber = Field(
        default=DEFAULT_WAIT_MS,
        ge=0,
        le=MAX_WAIT_MS,
        description="How long this call waits for the gate to open. After that the answer is 202, and the gate may open later.",
    )


class ReleaseRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples_gate.RELEASE_REQUEST]})

    token: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")] = Field(
        description="The `token` in the answer to the quiesce."
    )


class JobOfGate(BaseModel):
    id: str
    links: dict[str, str]


class GateAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples_gate.OPEN_GATE, examples_gate.OPENING_GATE]})

    job: JobOfGate
    token: str = Field(description="Releases the gate. The same request under the same Idempotency-Key is answered with the same token.")
    state: Literal[GateState.opening, GateState.open]
    opened_at: str | None
    deadline_at: str | None = Field(description="When the guest is thawed if nobody has released the gate.")
    hold_budget_ms: float | None = Field(description="How much of `deadline_ms` is left now.")
    filesystems_frozen: int | None


class ReleaseAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples_gate.RELEASED]})

    held: bool | None = Field(
        description="True: from the opening of the gate to its release the guest was held, and the evidence shows it. "
        "False: do not trust the copy. Null: the job has not ended yet."
    )
    job: JobAnswer
