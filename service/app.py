"""The composition root: the one place that builds the parts and joins them."""

import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, assert_never

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware
from starlette.types import ASGIApp

import service
from service.api import door, problems
from service.api.auth import Authentication, TokenCheck
from service.api.bodies import BodyLimit
from service.api.context import Context
from service.api.metrics import Metrics, RequestMetrics
from service.api.routes import (
    copies,
    docs,
    domains,
    gates,
    hosts,
    jobs,
    policies,
    protection,
    recovery_points,
    repositories,
    restores,
    retention,
)
from service.api.routes import service as service_routes
from service.api.worker_pages import WorkerPages
from service.config import Settings
from service.db import belonging, tokens
from service.db.engine import Database, open_engine
from service.db.reader import Reader
from service.db.schema import check_schema, migrate
from service.db.url import database_url
from service.db.writable import Trial
from service.deadlines import close_in_time
from service.errors import SettingInvalid, StillpointError
from service.model.kinds import JobKind
from service.model.windows.well_known_writers import WriterEffect
from service.model.windows.writer_rules import WriterRules
from service.records.wake import Wake
from service.scheduler.loops import loops_of

if TYPE_CHECKING:
    from service.jobs.kind import Handler, Handlers
    from service.worker.worker import Worker

Announce = Callable[[str], None]
SIGNAL_LOOK_S = 1.0
"""Seconds. The kernel may give a signal to another thread, which does not wake this thread, so it never waits without a limit."""
GRACE_SECONDS = 5
"""Seconds that open requests may take after a stop was asked for. Then they are cut off. Jobs have `shutdown_seconds` instead."""
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


def run_all(settings: Settings, announce: Announce) -> None:
    """API and worker in one process, until SIGTERM or SIGINT; brings the database up to date first."""
    with _stopped_by_signals(), _database(settings) as database, _listening(settings.bind, settings.port) as listener:
        bring_up_to_date(settings, database)
        wake = Wake()
        written = _first_token(settings, database)
        with _due(settings, database, wake), _running_worker(settings, database, wake) as worker:
            announce(_welcome("Stillpoint", settings, listener, written))
            # The API is the way to release a gate, so it outlives the jobs of the worker.
            wind_down = partial(worker.wind_down, settings.shutdown_seconds)
            _serve(create_api(settings, database, wake, worker.problem), listener, settings, wind_down)


def run_serve(settings: Settings, announce: Announce) -> None:
    """The API alone. Raises SchemaOutdated: only `all` and `migrate` change a database."""
    with _stopped_by_signals(), _database(settings) as database, _listening(settings.bind, settings.port) as listener:
        check_database(settings, database)
        written = _first_token(settings, database)
        wake = Wake()
        with _due(settings, database, wake):
            announce(_welcome("Stillpoint's API", settings, listener, written))
            _serve(create_api(settings, database, wake), listener, settings)


def run_worker(settings: Settings, announce: Announce) -> None:
    """The worker alone, with its own /metrics and /readyz where a port is set for them. Raises SchemaOutdated."""
    with _stopped_by_signals() as stopped, _database(settings) as database:
        check_database(settings, database)
        wake = Wake()
        with _due(settings, database, wake), _running_worker(settings, database, wake) as worker:
            announce(f"Stillpoint's worker runs the jobs of host {settings.host_id} on {settings.libvirt_uri}.")
            if settings.metrics_port is None:
                while not stopped.wait(SIGNAL_LOOK_S):
                    pass
                return
            with _listening(settings.bind, settings.metrics_port) as listener:
                _serve(Authentication(WorkerPages(Trial(database), worker.problem), TokenCheck(database)), listener, settings)


def _no_worker() -> None:
    """The problem of a worker that is not in this process."""


ROUTERS = (
    jobs.router,
    domains.router,
    gates.router,
    recovery_points.router,
    restores.router,
    repositories.router,
    copies.router,
    retention.router,
    policies.router,
    protection.router,
    hosts.router,
    service_routes.router,
)


def create_api(
    settings: Settings, database: Database, wake: Wake, worker_problem: Callable[[], StillpointError | None] = _no_worker
) -> FastAPI:
    """The HTTP API as an ASGI application; closing its lifespan ends its threads and connections."""
    reader = Reader(database.engine)
    check = TokenCheck(database)
    trial = Trial(database)
    metrics = Metrics(database, trial)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        check.close()
        reader.close()

    app = FastAPI(
        title="Stillpoint",
        version=service.__version__,
        # Both are served behind the token, by routes of our own.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestMetrics, metrics=metrics),
            Middleware(Authentication, check=check),
            Middleware(BodyLimit, limit_bytes=settings.max_body_bytes),
        ],
    )
    app.state.context = Context(settings, database, reader, metrics, wake.wake, trial, worker_problem)
    problems.install_handlers(app)
    for router in ROUTERS:
        # The routes themselves, not include_router: that would match every path twice, once per level.
        app.router.routes.extend(router.routes)
    app.router.routes.extend(docs.assets)
    return app


def open_database(settings: Settings) -> Database:
    """Raises SettingInvalid; no connection is made yet."""
    try:
        return Database(open_engine(database_url(settings)))
    except ModuleNotFoundError as error:
        reason = f"the driver {error.name} is not installed (pip install 'stillpoint[postgres]')"
        raise SettingInvalid(setting="STILLPOINT_DATABASE_URL", reason=reason) from error


def bring_up_to_date(settings: Settings, database: Database) -> None:
    """Raises DatabaseLost, DatabaseForeign: a new database is made only where there never was one."""
    belonging.check(settings, database.engine)
    migrate(database.engine)
    belonging.note(settings, database.engine)


def check_database(settings: Settings, database: Database) -> None:
    """Raises DatabaseLost, DatabaseForeign, SchemaOutdated."""
    belonging.check(settings, database.engine)
    check_schema(database)
    belonging.note(settings, database.engine)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings)
    try:
        yield database
    finally:
        # SQLite writes what is in its WAL into its file when the last connection is closed.
        close_in_time(database.dispose, call="close the database")


@contextmanager
def _due(settings: Settings, database: Database, wake: Wake) -> Iterator[None]:
    """What is due without anybody asking. Any number of processes look."""
    loops = loops_of(settings, database, wake.wake, threading.Event())
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()


@contextmanager
def _running_worker(settings: Settings, database: Database, wake: Wake) -> Iterator["Worker"]:
    # Imported here, so that an API without libvirt-python starts.
    from service.freeze.guard import GuardKeeper
    from service.hypervisor.connection import HostConnection
    from service.worker.worker import Worker

    door.raise_open_files()
    guards = GuardKeeper(settings.state_dir, settings.libvirt_uri)
    worker = Worker(settings, database, HostConnection(settings.libvirt_uri), wake, guards, handlers=handlers(settings))
    worker.start()
    try:
        guards.start()
        yield worker
    finally:
        worker.stop(settings.shutdown_seconds)
        guards.close()


def handlers(settings: Settings) -> "Handlers":
    """The handlers of a worker: one for every kind of job. Raises SettingInvalid."""
    from service.repository import keys

    keys.allow(settings.key_programs)
    return {kind.value: _handler(kind, settings) for kind in JobKind}


def _handler(kind: JobKind, settings: Settings) -> "Handler":
    from service.freeze.frozen_pass import PassSettings
    from service.jobs.backup import Backup
    from service.jobs.backup_copy import CopySettings
    from service.jobs.copy import Copy
    from service.jobs.emergency import Thaw
    from service.jobs.gate import Quiesce
    from service.jobs.merge import Merge
    from service.jobs.preflight import Preflight
    from service.jobs.prune import Prune
    from service.jobs.restore import Restore
    from service.jobs.snapshot import Snapshot
    from service.jobs.verify import Verify

    passes = PassSettings(writers_settle_s=settings.writers_settle_seconds, writer_rules=writer_rules(settings))
    overlays, silence_s = (settings.overlay_dir, settings.overlay_reserve_bytes), settings.repository_silence_seconds
    match kind:
        case JobKind.snapshot:
            handler: Handler = Snapshot(passes, *overlays, settings.max_chain_depth)
        case JobKind.quiesce:
            handler = Quiesce(passes)
        case JobKind.preflight:
            handler = Preflight(settings.max_chain_depth, *overlays)
        case JobKind.thaw:
            handler = Thaw()
        case JobKind.backup:
            handler = Backup(settings.state_dir, passes, *overlays, silence_s, CopySettings(settings.repository_patience_seconds))
        case JobKind.restore:
            handler = Restore(silence_s, proof_days=settings.proof_days)
        case JobKind.verify:
            handler = Verify(silence_s, state_dir=settings.state_dir)
        case JobKind.prune:
            handler = Prune(silence_s)
        case JobKind.copy:
            handler = Copy(settings.state_dir)
        case JobKind.merge:
            handler = Merge(settings.state_dir, silence_s)
        case _:
            assert_never(kind)
    return handler


def writer_rules(settings: Settings) -> WriterRules:
    """Raises SettingInvalid."""
    try:
        return WriterRules.from_settings(settings.writer_rules)
    except ValueError as error:
        reason = f"{error}; an effect is one of {', '.join(WriterEffect)}"
        raise SettingInvalid(setting="STILLPOINT_WRITER_RULES", reason=reason) from error


@contextmanager
def _listening(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio turns Nagle's delay off only where it knows that the protocol is TCP: small answers would wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        setting = "STILLPOINT_BIND, STILLPOINT_PORT"
        raise SettingInvalid(setting=setting, reason=f"cannot listen on {address}:{port}: {error.strerror or error}") from error
    with listener:
        yield listener


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT ask for a stop and never cut it short: a guest may be frozen while the worker winds down.

    While uvicorn runs it takes the signals itself, stops, and hands them on to these handlers.
    """
    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(app: ASGIApp, listener: socket.socket, settings: Settings, wind_down: Callable[[], object] = lambda: None) -> None:
    door.serve(app, listener, max_connections=settings.max_connections, grace_seconds=GRACE_SECONDS, wind_down=wind_down)


def _first_token(settings: Settings, database: Database) -> Path | None:
    with database.write() as session:
        return tokens.create_first(session, settings.token_file)


def _welcome(who: str, settings: Settings, listener: socket.socket, written: Path | None) -> str:
    address = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
    if written is not None:
        token = f"the first token is in {written}"
    elif settings.token_file.exists():
        token = f"a token is in {settings.token_file}"
    else:
        token = "make a token with `stillpoint token create`"  # noqa: S105 - a sentence about tokens
    return f"{who} listens on http://{address}:{listener.getsockname()[1]} (see /docs); {token}."
