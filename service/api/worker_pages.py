"""The pages of a worker without an API: health, readiness and metrics."""

from collections.abc import Callable

from anyio.to_thread import run_sync
from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.problems import problem_response
from service.db.writable import Trial
from service.errors import PathNotFound, StillpointError

OK = b'{"status":"ok"}'


class WorkerPages:
    """ASGI. Ready, as for `stillpoint all`: the worker can write to the database, libvirt answers, and every loop runs."""

    def __init__(self, trial: Trial, problem: Callable[[], StillpointError | None]) -> None:
        self._trial = trial
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await run_sync(self._answer, scope["path"])
        except StillpointError as error:
            answer = problem_response(error, scope["path"])
        await answer(scope, receive, send)

    def _answer(self, path: str) -> Response:
        match path:
            case "/healthz":
                return Response(OK, media_type="application/json")
            case "/readyz":
                check_readiness(self._trial, self._problem)
                return Response(OK, media_type="application/json")
            case "/metrics":
                return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        raise PathNotFound(path=path)


def check_readiness(trial: Trial, problem: Callable[[], StillpointError | None]) -> None:
    """Raises the first problem that stops the process from working."""
    trial.check()
    fault = problem()
    if fault is not None:
        # A new error each time, because an error that is raised again and again would gather tracebacks.
        raise type(fault)(**fault.facts)
