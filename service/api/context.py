"""What every call can reach: made once by the composition root, found through the request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from service.api.metrics import Metrics
from service.config import Settings
from service.db.engine import Database
from service.db.reader import Reader
from service.db.writable import Trial
from service.errors import StillpointError


@dataclass(frozen=True)
class Context:
    settings: Settings
    database: Database
    reader: Reader
    metrics: Metrics
    #: Tells a worker in this process that there is a new job; workers elsewhere look every second anyway.
    wake: Callable[[], None]
    trial: Trial
    #: What keeps a worker in this process from working; a worker elsewhere is seen at /api/v1/hosts.
    worker_problem: Callable[[], StillpointError | None]


def context_of(request: Request) -> Context:
    return cast("Context", request.app.state.context)


def token_id_of(request: Request) -> str:
    """The id of the token that the authentication has let through."""
    return cast("str", request.state.token_id)
