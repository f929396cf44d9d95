"""The thaw guard: a process for each freeze window, which thaws when its worker dies or lets the deadline pass.

This module is a program, which the worker does not import. A worker starts `python -m service.freeze.guard_process FD` once: the
*keeper*. The keeper has everything that a guard needs in memory, and forks a guard for each window. So a guard starts fast and needs
little memory. Guards have no database connection, write no log, and outlive the keeper and the worker.

Over its socket (SOCK_SEQPACKET, JSON; instants are nanoseconds of CLOCK_MONOTONIC, the same for all processes) a guard
hears `{"freezing": latest, "hold": nanoseconds}`, `{"frozen": count, "until": instant}` and `{"dismiss": true}`, and says
`{"ready": pid}` or `{"failed": text}`, and when dismissed `{"report": ... or null}`.
"""

import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.clock import rfc3339
from service.errors import StillpointError
from service.freeze.window import thaw_until_answered
from service.hypervisor.guard_connection import connect_guest
from service.hypervisor.guest import Guest
from service.model.window import GuardReason, GuardReport, GuardState, ThawOutcome, ThawReply

GRACE_NS = 500_000_000
"""Nanoseconds after the deadline in which a living worker may still thaw by itself. Its reply is better evidence. Then the guard thaws."""
ASK_AFTER_NS = 1_000_000_000
"""Nanoseconds until the guard first asks the agent. Most freezes are answered before. A question may delay a window by an agent command."""
ASK_AGAIN_NS = 500_000_000
"""Nanoseconds between two further questions."""
SETTLE_S = 2.0
"""Seconds that the guard watches, after its thaw, that the guest stays thawed."""
SETTLE_POLL_S = 0.1
"""Seconds between two questions of that watch."""
PATIENCE_S = 60.0
"""Seconds of one series of thaws. After that the next series begins, until the agent answers."""
REPORT_BYTES = 4096
"""The size of the report's file."""
MAX_MESSAGE_LENGTH = 3000
"""Bytes of JSON. A longer message is cut, so that the report fits into its file."""
MESSAGE_BYTES = 65536
"""The largest message on the socket. The rest of a longer message is lost."""


def keep(control: socket.socket) -> None:
    """Fork a guard for each socket that the worker sends, until the worker is gone."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # The kernel reaps the guards that end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _be_spared_when_memory_is_short()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _guard(socket.socket(fileno=descriptors[0]), Task(**json.loads(message)))
        os.close(descriptors[0])


def _be_spared_when_memory_is_short() -> None:
    # Only root with CAP_SYS_RESOURCE may do this. Without it, the small size of the process is its protection.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")


def _guard(worker: socket.socket, task: "Task") -> None:
    """The forked process. It ends inside this function."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        Guard(worker, task).watch()
        status = 0
    except StillpointError as error:
        _send(worker, {"failed": error.detail})
    except Exception as error:  # noqa: BLE001 - the edge of the process: below is the keeper's loop, which a guard must never run
        _send(worker, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(status)


@dataclass(frozen=True)
class Task:
    job_id: str
    domain: str
    uri: str
    report: str


class Guard:
    def __init__(self, worker: socket.socket, task: Task) -> None:
        """Raises StillpointError when libvirt or the domain is not there."""
        self._worker = worker
        self._path = Path(task.report)
        self._progress = GuardReport(task.job_id, task.domain, os.getpid(), GuardState.watching)
        self._report = _create_report(task.report)
        self._write_report()
        self._guest: Guest = connect_guest(task.uri, task.domain)
        self._freezing = False
        self._frozen_count: int | None = None
        self._deadline_ns: int | None = None
        self._wake_ns: int | None = None
        self._hold_ns = 0
        self._thawed = False

    def watch(self) -> None:
        """Watch until the guard is dismissed, or has thawed after the worker died."""
        _send(self._worker, {"ready": os.getpid()})
        readable = select.poll()
        readable.register(self._worker, select.POLLIN)
        while True:
            if not readable.poll(self._milliseconds_left()):
                self._look_at_the_clock()
                continue
            message = _receive(self._worker)
            if message is None:
                if self._freezing and not self._thawed:
                    self._thaw(GuardReason.worker_gone)
                elif not self._thawed:
                    self._remove_report()
                return
            if "dismiss" in message:
                self._end_dismissed()
                return
            self._note(message)

    def _milliseconds_left(self) -> float | None:
        if self._wake_ns is None or self._thawed:
            return None
        return max(0.0, (self._wake_ns - time.monotonic_ns()) / 1e6)

    def _note(self, message: dict[str, Any]) -> None:
        if "freezing" in message:
            self._freezing = True
            self._deadline_ns, self._hold_ns = message["freezing"], message["hold"]
            self._wake_ns = time.monotonic_ns() + ASK_AFTER_NS
        elif "frozen" in message:
            self._frozen_count, self._deadline_ns = message["frozen"], message["until"]
            self._wake_ns = message["until"] + GRACE_NS

    def _look_at_the_clock(self) -> None:
        now = time.monotonic_ns()
        assert self._deadline_ns is not None
        if now >= self._deadline_ns + GRACE_NS:
            self._thaw(GuardReason.deadline)
            return
        # No report of the freeze: the freeze takes long, or the worker hangs. If the guest is frozen, the hold counts from now.
        if self._is_frozen():
            self._deadline_ns = min(self._deadline_ns, now + self._hold_ns)
            self._wake_ns = self._deadline_ns + GRACE_NS
        else:
            self._wake_ns = min(time.monotonic_ns() + ASK_AGAIN_NS, self._deadline_ns + GRACE_NS)

    def _is_frozen(self) -> bool:
        with suppress(StillpointError):
            return self._guest.is_frozen()
        return False

    def _thaw(self, reason: GuardReason) -> None:
        report = self._progress
        report.state, report.reason = GuardState.thawing, reason
        report.thaw_sent_at, report.thaw_sent_ns = _now(), time.monotonic_ns()
        # The report is not written first, because a disk that hangs must not keep the guest frozen.
        reply = self._thaw_until_answered()
        report.thaw_reply_ns, report.thawed_at = time.monotonic_ns(), _now()
        report.outcome, report.count, report.message = reply.outcome, reply.count, _shortened(reply.message)
        if self._frozen_count is None:
            self._see_that_it_stays_thawed()
        report.state = GuardState.thawed
        self._thawed = True
        self._write_report()

    def _thaw_until_answered(self) -> ThawReply:
        while True:
            reply = thaw_until_answered(self._guest, self._frozen_count, PATIENCE_S)
            self._progress.attempts += reply.attempts
            if reply.outcome is not ThawOutcome.unanswered:
                return reply

    def _see_that_it_stays_thawed(self) -> None:
        """The guard did not see the answer to the freeze, so the freeze may have come after the thaw. Look, and thaw again."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            time.sleep(SETTLE_POLL_S)
            if self._is_frozen():
                late = self._thaw_until_answered()
                self._progress.count, self._progress.message, self._progress.thawed_at = late.count, _shortened(late.message), _now()

    def _end_dismissed(self) -> None:
        if self._thawed:
            _send(self._worker, {"report": self._progress.as_file()})
            return
        self._remove_report()
        _send(self._worker, {"report": None})

    # --- the report -----------------------------------------------------------------------------

    def _write_report(self) -> None:
        if self._report is not None:
            with suppress(OSError):
                os.pwrite(self._report, json.dumps(self._progress.as_file()).encode().ljust(REPORT_BYTES), 0)

    def _remove_report(self) -> None:
        # Only the report of this guard: the guard of a later attempt may have a report with the same name.
        with suppress(OSError):
            if self._report is not None and os.path.samestat(os.fstat(self._report), self._path.lstat()):
                self._path.unlink()


def _shortened(message: str | None) -> str | None:
    """The agent's error may contain all that a hook printed."""
    while message is not None and len(json.dumps(message)) > MAX_MESSAGE_LENGTH:
        message = message[: len(message) * 3 // 4]
    return message


def _create_report(path: str) -> int | None:
    """Create the file in its full size, so that a disk that fills up later does not matter. None: the file could not be created.

    A guard works without a report, too.
    """
    try:
        report = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(report, 0, REPORT_BYTES)
    except OSError:
        return None
    # The lock is held as long as this process lives. Other processes see by the lock that the guard is alive.
    fcntl.flock(report, fcntl.LOCK_EX)
    return report


def _send(worker: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):
        worker.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)


def _receive(worker: socket.socket) -> dict[str, Any] | None:
    """None: the worker is gone."""
    try:
        data = worker.recv(MESSAGE_BYTES)
    except OSError:
        return None
    return json.loads(data) if data else None


def _now() -> str:
    return rfc3339(datetime.now(UTC))


if __name__ == "__main__":
    keep(socket.socket(fileno=int(sys.argv[1])))
