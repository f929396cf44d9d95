"""One host with fake domains and a real database: jobs are asked for, claimed and run as a worker does it."""

import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.app import handlers
from service.config import Settings
from service.db.engine import Database
from service.db.tables import Gate, Job, RecoveryPoint
from service.freeze.guard import NoGuards
from service.jobs.kind import Handler, Host
from service.jobs.run import JobRun
from service.model.gate import GateState
from service.records import gates, queue
from service.records.queue import Claim, NewJob
from service.worker.execution import Execution
from service.worker.recovery import Recovery
from tests.fakes import FakeDisk, FakeDomain, FakeHost

HOST = "hv1"
GATE_MS = 5_000
FREEZE, THAW, STATUS = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"


class Scene:
    """`domain` is the first domain; more come with `add`. `images` is where the disks lie."""

    def __init__(self, database: Database, folder: Path, disks: Sequence[str] = ("vda",), **settings: Any) -> None:
        self.database = database
        self.images = folder / "images"
        self.images.mkdir()
        self.host = FakeHost()
        self.domain = self.add("db1", disks)
        self.settings = Settings(state_dir=folder / "state", host_id=HOST, **({"overlay_reserve_bytes": 4096} | settings))
        self.handlers = handlers(self.settings)
        self.ours = Host(self.host.guest, self.host.guests, NoGuards(), self.host)
        self.execution = Execution(self.ours, self.handlers)
        self.abandoned = threading.Event()
        self.hung: list[threading.Event] = []
        with database.write() as session:
            queue.ensure_slots(session, f"host:{HOST}:quick", 4)

    def add(self, name: str, disks: Sequence[str] = ("vda",), **options: Any) -> FakeDomain:
        domain = FakeDomain(name, [self.disk(target, name) for target in disks], **options)
        self.host.domains.append(domain)
        return domain

    def hang(self, call: str, domain: FakeDomain | None = None) -> threading.Event:
        """The next such call on the domain hangs until the event is set, or `let_go` is called."""
        self.hung.append((domain or self.domain).hang_next(call))
        return self.hung[-1]

    def let_go(self) -> None:
        """What hangs goes on."""
        for event in self.hung:
            event.set()

    def disk(self, target: str, domain: str = "db1", **options: Any) -> FakeDisk:
        image = self.images / f"{domain}-{target}.qcow2"
        disk = FakeDisk(target, image, **options)
        image.write_bytes(qcow2_header() if disk.format == "qcow2" else b"")
        return disk

    def replace(self, disks: Sequence[FakeDisk], **options: Any) -> FakeDomain:
        """The domain db1 anew, of these disks."""
        self.host.domains.remove(self.domain)
        self.domain = FakeDomain("db1", disks, **options)
        self.host.domains.append(self.domain)
        return self.domain

    # --- jobs -----------------------------------------------------------------------------------

    def ask(self, kind: str = "snapshot", domain: FakeDomain | None = None, *, max_attempts: int = 3, **request: Any) -> str:
        wanted = domain or self.domain
        new = NewJob(
            kind=kind,
            domain_id=wanted.uuid(),
            domain_name=wanted.name(),
            host_id=HOST,
            request={"kind": kind, "domain": wanted.name(), **request},
            labels={"by": "test"},
            max_attempts=max_attempts,
            repository_id=request.get("repository"),
        )
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def claim(self) -> JobRun:
        with self.database.write() as session:
            claim = queue.claim(session, HOST, f"{HOST}:1", 60)
        assert isinstance(claim, Claim)
        return JobRun(claim, self.database, self.abandoned)

    def run(self, kind: str = "snapshot", domain: FakeDomain | None = None, **request: Any) -> Job:
        """Ask for a job, run it to its end, and answer its row."""
        job_id = self.ask(kind, domain, **request)
        self.execution.execute(self.claim())
        return self.job(job_id)

    def run_by(self, handler: Handler, run: JobRun | None = None) -> None:
        """The next job of the queue, by a handler with settings of its own."""
        run = run or self.claim()
        run.finish(handler.run(run, self.ours))

    def recovery(self, **options: Any) -> Recovery:
        return Recovery(self.database, self.host, self.ours, self.handlers, **options)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            found = session.get(Job, job_id)
        assert found is not None
        return found

    def points(self) -> list[RecoveryPoint]:
        with self.database.read() as session:
            return list(session.scalars(select(RecoveryPoint)))

    def die_in(self, run: JobRun) -> None:
        """The worker of this job is no more: its lease is over and nobody writes for it."""
        with self.database.write() as session:
            assert run.claim.job_id in queue.release_expired(session, HOST, all_running=True)

    # --- gates: the test is the caller ---------------------------------------------------------------

    def ask_for_a_gate(self, deadline_ms: int = GATE_MS, **request: Any) -> str:
        freeze = {"mode": "required", "hold_limit_ms": deadline_ms}
        job_id = self.ask("quiesce", max_attempts=1, freeze=freeze, **request)
        with self.database.write() as session:
            gates.add(session, job_id, "secret", deadline_ms)
        return job_id

    def gate(self, job_id: str) -> Gate:
        with self.database.read() as session:
            return session.get_one(Gate, job_id)

    @contextmanager
    def running(self, job_id: str) -> Iterator[None]:
        """A worker runs the job beside the test."""
        thread = threading.Thread(target=self.execution.execute, args=(self.claim(),))
        thread.start()
        yield
        thread.join(20)
        assert not thread.is_alive()

    def wait_for(self, job_id: str, state: GateState) -> Gate:
        deadline = time.monotonic() + 10
        while (gate := self.gate(job_id)).state != state:
            assert time.monotonic() < deadline, f"the gate is {gate.state}"
            time.sleep(0.005)
        return gate

    def release(self, job_id: str) -> None:
        with self.database.write() as session:
            gates.request_release(session, job_id)

    def pass_through(self, job_id: str, meanwhile: Callable[[], object] = lambda: None) -> Job:
        """Wait until it is open, do something, release, and wait for the end."""
        with self.running(job_id):
            self.wait_for(job_id, GateState.open)
            meanwhile()
            self.release(job_id)
        return self.job(job_id)

    def run_alone(self, job_id: str) -> Job:
        """Nobody releases it."""
        self.execution.execute(self.claim())
        return self.job(job_id)

    # --- files ----------------------------------------------------------------------------------

    def overlays(self) -> list[str]:
        """Names of the files beside the images that were not there at the start."""
        bases = {Path(base).name for domain in self.host.domains for base in _bases(domain)}
        return sorted(path.name for path in self.images.iterdir() if path.name not in bases)

    def sources(self, domain: FakeDomain | None = None) -> dict[str, str]:
        guest = self.host.guest((domain or self.domain).name())
        return {target: Path(source or "").name for target, source in guest.sources().items()}


def qcow2_header(*, below: str = "", below_format: str = "qcow2", encryption: int = 0, features: int = 0, snapshots: int = 0) -> bytes:
    """The beginning of a qcow2, version 3; `encryption` and `features` as the format numbers them."""
    extension = struct.pack(">II8s", 0xE2792ACA, len(below_format), below_format.encode()) if below else b""
    name_at = 104 + len(extension) + 8 if below else 0
    fixed = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, name_at, len(below), 16, 1 << 26, encryption, 1, 0, 0, 1, snapshots, 0)
    return fixed + struct.pack(">QQQII", features, 0, 0, 4, 104) + extension + bytes(8) + below.encode()


def _bases(domain: FakeDomain) -> list[str]:
    return [str(disk.source) for disk in domain.disks]


def error_of(job: Job) -> dict[str, Any]:
    """The error of a job, checked to be whole."""
    assert job.error is not None, f"{job.state} without an error"
    assert job.error["detail"]
    assert job.error["remedy"]
    assert job.error["title"]
    return job.error


def phases_of(job: Job) -> list[tuple[str, str]]:
    return [(phase["name"], phase["outcome"]) for phase in job.phases]
