"""The objects that every call can use. The composition root makes them once, and calls get them from the request."""

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
    #: Wakes a worker in this process for a new job. Workers in other processes look every second anyway.
    wake: Callable[[], None]
    trial: Trial
    #: The problem that stops the worker in this process. A worker in another process is seen at /api/v1/hosts.
    worker_problem: Callable[[], StillpointError | None]


def context_of(request: Request) -> Context:
    return cast("Context", request.app.state.context)


def token_id_of(request: Request) -> str:
    """The id of the token that the authentication has let through."""
    return cast("str", request.state.token_id)
