"""Guards of earlier jobs are ended before a window, within bounds, whatever stands in their reports and whatever hangs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import GuardNotReady
from service.freeze import guard_process, guard_report
from service.freeze.guard import Guard, GuardKeeper
from service.model.window import GuardState, ThawOutcome, ThawReply
from tests.freeze.test_guard_report import THAWED

EARLIER, MINE = "job-of-before", "job-of-now"
HOLDS_THE_LOCK = """
import fcntl, sys
report = open(sys.argv[1], "rb")
fcntl.flock(report, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def guard_at_work(state_dir: Path, content: bytes, job_id: str = EARLIER) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock of its report, as a guard does as long as it lives."""
    path = guard_report.path_of(state_dir, job_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    process = subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "cut": json.dumps(THAWED).encode()[:40],
    "nonsense": b"\xff\x00\xfe" * 100,
    "without a pid": json.dumps({**THAWED, "pid": None}).encode(),
    "another's pid": json.dumps({**THAWED, "pid": os.getpid()}).encode(),
    "of a gigabyte": b"x" * 100_000,
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_guard_is_ended_by_the_lock_that_it_holds_whatever_its_report_says(tmp_path: Path, content: bytes) -> None:
    with guard_at_work(tmp_path, content) as process:
        assert guard_report.end(tmp_path, EARLIER, 0.0)
        assert process.wait(5) == -signal.SIGKILL


def test_a_guard_that_is_not_to_be_found_is_waited_for_no_longer_than_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_report, "_holder", lambda path: None)
    monkeypatch.setattr(guard_report, "DIES_WITHIN_S", 0.2)
    with guard_at_work(tmp_path, b"") as process:
        start = time.monotonic()
        assert not guard_report.end(tmp_path, EARLIER, 0.1)
        assert time.monotonic() - start < 5
        assert process.poll() is None


def test_a_guard_that_ends_by_itself_is_not_killed(tmp_path: Path) -> None:
    with guard_at_work(tmp_path, json.dumps(THAWED).encode()) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert guard_report.end(tmp_path, EARLIER, 10.0)
        assert process.wait(5) == 0


# --- before a window ------------------------------------------------------------------------------


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuardKeeper:
    """Its guards are sockets with nobody behind them."""
    monkeypatch.setattr(GuardKeeper, "_fork", lambda self, task: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    monkeypatch.setattr("service.freeze.guard.OTHERS_S", 0.1)
    return GuardKeeper(tmp_path, "test:///default")


def test_a_guard_of_an_earlier_worker_that_does_not_say_of_which_guest_it_is_is_ended(tmp_path: Path, keeper: GuardKeeper) -> None:
    with guard_at_work(tmp_path, b"") as process, keeper.start_guard(MINE, "db1", "db1"):
        assert process.wait(5) == -signal.SIGKILL


def test_a_guard_of_another_guest_goes_on_even_if_its_report_cannot_be_read(tmp_path: Path, keeper: GuardKeeper) -> None:
    with keeper.start_guard(EARLIER, "db2", "db2"), guard_at_work(tmp_path, b"") as process, keeper.start_guard(MINE, "db1", "db1"):
        assert process.poll() is None


def test_nothing_is_frozen_beside_a_guard_that_cannot_be_ended(
    tmp_path: Path, keeper: GuardKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_report, "_holder", lambda path: None)
    monkeypatch.setattr(guard_report, "DIES_WITHIN_S", 0.1)
    with guard_at_work(tmp_path, json.dumps({**THAWED, "domain": "db1"}).encode()), pytest.raises(GuardNotReady) as refused:
        keeper.start_guard(MINE, "db1", "db1")
    assert EARLIER in str(refused.value.facts["reason"])


class Stuck:
    """A process that hangs in the kernel: killed, and not gone."""

    def __init__(self) -> None:
        self.killed = False

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.killed = True

    def wait(self, seconds: float) -> int:
        raise subprocess.TimeoutExpired("keeper", seconds)


def test_a_keeper_that_does_not_end_is_left_behind_and_stops_nothing(tmp_path: Path) -> None:
    keeper, stuck = GuardKeeper(tmp_path, "test:///default"), Stuck()
    keeper._process = stuck  # type: ignore[assignment]  # a process that hangs cannot be had at will
    keeper.start()
    assert stuck.killed
    second = keeper._process
    keeper.close()
    # On a busy machine it ends later than `close` waits.
    assert second is not None
    second.wait(60)
    keeper._process = stuck  # type: ignore[assignment]  # as above
    keeper.close()


# --- what a guard says ----------------------------------------------------------------------------


def saying(*messages: bytes) -> Guard:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for message in messages:
        its.send(message)
    its.close()
    return Guard(lambda: mine, "db1")


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b"{}", b"7", b'{"failed": null}'])
def test_a_guard_that_talks_nonsense_is_not_ready(said: bytes) -> None:
    with saying(said, said) as guard, pytest.raises(GuardNotReady):
        guard.wait_until_ready()


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b'{"report": {}}', b'{"report": {"outcome": "whim"}}', b'{"report": 7}'])
def test_what_a_guard_did_is_not_known_where_it_talks_nonsense(said: bytes) -> None:
    with saying(said) as guard:
        assert guard.dismiss() is None


@pytest.mark.parametrize("message", ["x" * 10_000, "ä" * 10_000, "\U0001f600" * 5_000, '"\n' * 5_000, "short"], ids=lambda text: text[:1])
def test_a_message_of_any_length_leaves_a_report_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    reply = ThawReply(ThawOutcome.refused, message=message, attempts=1)
    monkeypatch.setattr(guard_process, "thaw_until_answered", lambda guest, frozen, patience: reply)
    monkeypatch.setattr(guard_process, "connect_guest", lambda uri, domain: None)
    path = guard_report.path_of(tmp_path, EARLIER)
    path.parent.mkdir(parents=True)
    worker, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guard = guard_process.Guard(its, guard_process.Task(EARLIER, "db1", "test:///default", str(path)))
    worker.send(json.dumps({"freezing": time.monotonic_ns(), "hold": 1}).encode())
    worker.send(json.dumps({"frozen": 2, "until": time.monotonic_ns()}).encode())
    worker.close()

    with its:
        guard.watch()

    report = guard_report.read(tmp_path, EARLIER)
    assert report is not None
    assert (report.state, report.fault, path.stat().st_size) == (GuardState.thawed, None, guard_process.REPORT_BYTES)
    assert message.startswith(report.message or "nothing")
