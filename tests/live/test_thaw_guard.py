"""The thaw guard on a real guest: whatever becomes of its worker, the guest is thawed; and what it costs."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import GuardNotReady
from service.freeze import guard_report
from service.freeze import window as freeze_window
from service.freeze.guard import Guard, GuardKeeper
from service.freeze.window import WindowPlan
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.model.window import GuardReport, ThawOutcome, WindowRecord
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest

pytestmark = pytest.mark.live

JOB = "5d0f7a52-0000-4000-8000-000000000001"
MS = 1_000_000
PATIENCE_S = 60.0
"""For what comes in a moment on an idle machine."""
FREEZE = {"execute": "guest-fsfreeze-freeze"}


class Post:
    """A worker's state folder with a keeper, and one guest to guard."""

    def __init__(self, state_dir: Path, lab_guest: LabGuest) -> None:
        self.state_dir = state_dir
        self.keeper = GuardKeeper(state_dir, uri())
        self.connection = HostConnection(uri())
        self.lab_guest = lab_guest
        self.guest: Guest = self.connection.guest(lab_guest.name)

    def start_guard(self, job_id: str = JOB) -> Guard:
        guard = self.keeper.start_guard(job_id, self.guest.uuid, self.guest.name)
        guard.wait_until_ready()
        return guard

    @property
    def report(self) -> GuardReport | None:
        return guard_report.read(self.state_dir, JOB)

    def run(self, take: Callable[[], None], **plan: Any) -> WindowRecord:
        wanted: dict[str, Any] = {"mountpoints": None, "freeze_timeout_ms": 10_000, "hold_limit_ms": 5_000} | plan
        with self.start_guard() as guard:
            return freeze_window.run(self.guest, lambda _hold: take(), WindowPlan(**wanted), guard)

    def pid(self) -> int:
        report = self.report
        assert report is not None and report.pid is not None
        return report.pid

    def close(self) -> None:
        self.keeper.close()
        self.connection.close()


@pytest.fixture
def post(tmp_path: Path, shared_guest: LabGuest) -> Iterator[Post]:
    post = Post(tmp_path / "state", shared_guest)
    yield post
    post.close()


def wait_for(true: Callable[[], object], seconds: float) -> float:
    """Seconds until it was true."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "it did not become true in time"
        time.sleep(0.01)
    return time.monotonic() - start


def freeze(post: Post, guard: Guard, hold_ms: int) -> None:
    now = time.monotonic_ns()
    guard.freezing(now + 60_000 * MS, hold_ms * MS)
    count = post.lab_guest.agent(FREEZE)
    guard.frozen(count, time.monotonic_ns() + hold_ms * MS)


def test_a_worker_that_dies_is_followed_by_a_thaw_at_once(post: Post) -> None:
    mark = post.lab_guest.mark()
    guard = post.start_guard()
    freeze(post, guard, hold_ms=30_000)
    with guard:
        pass
    wait_for(lambda: (report := post.report) and report.state == "thawed" and not report.is_alive, PATIENCE_S)

    report = post.report
    assert report is not None
    assert (report.reason, report.count) == ("worker_gone", 1)
    assert post.lab_guest.freeze_status() == "thawed"
    assert max(stall.ms for stall in post.lab_guest.stalls(mark)) < 3_000


def test_a_worker_that_hangs_is_thawed_half_a_second_after_its_deadline(post: Post) -> None:
    with post.start_guard() as guard:
        mark = post.lab_guest.mark()
        freeze(post, guard, hold_ms=400)
        wait_for(lambda: (report := post.report) and report.state == "thawed", PATIENCE_S)
        assert 900 <= max(stall.ms for stall in post.lab_guest.stalls(mark)) < 5_000
        deed = guard.dismiss()
    assert deed is not None
    assert (deed.reason, deed.reply.outcome, deed.reply.count) == ("deadline", ThawOutcome.completed, 1)


def test_a_worker_that_hangs_before_it_saw_the_freeze_answered_is_noticed_too(post: Post) -> None:
    with post.start_guard() as guard:
        guard.freezing(time.monotonic_ns() + 60_000 * MS, 300 * MS)
        mark = post.lab_guest.mark()
        post.lab_guest.agent(FREEZE)
        wait_for(lambda: (report := post.report) and report.state == "thawed", PATIENCE_S)
        assert max(stall.ms for stall in post.lab_guest.stalls(mark)) < 6_000


def test_a_freeze_that_is_still_on_its_way_when_the_worker_dies_is_thawed_when_it_comes(post: Post) -> None:
    with post.start_guard() as guard:
        guard.freezing(time.monotonic_ns() + 60_000 * MS, 30_000 * MS)
    time.sleep(0.3)
    post.lab_guest.agent(FREEZE)
    wait_for(lambda: (report := post.report) and not report.is_alive, PATIENCE_S)
    assert post.lab_guest.freeze_status() == "thawed"


def test_a_guard_that_is_dismissed_leaves_neither_a_process_nor_a_file(post: Post) -> None:
    with post.start_guard() as guard:
        pid = post.pid()
        assert guard.dismiss() is None
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE_S)
    assert post.report is None


def test_a_worker_that_gives_up_before_the_freeze_needs_no_dismissal(post: Post) -> None:
    with post.start_guard():
        pid = post.pid()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE_S)
    assert post.report is None


def test_a_guard_that_is_killed_ends_the_window_at_once_and_nothing_is_taken_late(post: Post) -> None:
    def die_and_wait() -> None:
        os.kill(post.pid(), signal.SIGKILL)
        wait_for(lambda: post.lab_guest.freeze_status() == "thawed", PATIENCE_S)

    mark = post.lab_guest.mark()
    record = post.run(die_and_wait, hold_limit_ms=30_000)

    assert (record.guard_died, record.watchdog_fired, record.thaw.outcome) == (True, True, ThawOutcome.completed)
    assert max(stall.ms for stall in post.lab_guest.stalls(mark)) < 3_000


def test_a_guard_that_is_stopped_is_not_waited_for_and_never_wakes_in_a_later_window(post: Post) -> None:
    pid = 0

    def stop_the_guard() -> None:
        nonlocal pid
        pid = post.pid()
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: post.lab_guest.freeze_status() == "thawed", 60)

    # Long enough that a busy machine comes to the point before the limit.
    record = post.run(stop_the_guard, hold_limit_ms=3_000)

    assert (record.watchdog_fired, record.thaw.outcome, record.guard) == (True, ThawOutcome.completed, None)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE_S)


def test_a_guard_left_by_an_earlier_job_is_ended_before_the_next_window(post: Post) -> None:
    with post.start_guard():
        pid = post.pid()
        os.kill(pid, signal.SIGSTOP)
    post.start_guard("5d0f7a52-0000-4000-8000-000000000002").__exit__(None, None, None)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE_S)


@pytest.fixture
def several_guards(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several guards may watch over the one guest, which spares a test several guests."""
    monkeypatch.setattr(post.keeper, "_end_others", lambda _: None)


@pytest.mark.usefixtures("several_guards")
def test_a_keeper_that_was_killed_is_started_again_and_its_guards_go_on(post: Post) -> None:
    with post.start_guard() as guard:
        freeze(post, guard, hold_ms=30_000)
        os.kill(keeper_of(post.pid()), signal.SIGKILL)
        with post.start_guard("5d0f7a52-0000-4000-8000-000000000003") as second:
            assert second.dismiss() is None
        assert post.lab_guest.freeze_status() == "frozen"
    wait_for(lambda: (report := post.report) and report.state == "thawed", PATIENCE_S)


def test_a_guard_for_a_domain_that_is_not_there_says_so(post: Post) -> None:
    with post.keeper.start_guard(JOB, "00000000-0000-4000-8000-000000000000", "gone") as guard, pytest.raises(GuardNotReady, match="gone"):
        guard.wait_until_ready()


@pytest.mark.usefixtures("several_guards")
def test_all_guards_of_a_host_together_need_less_than_40_mb(post: Post) -> None:
    guards = [post.start_guard(f"5d0f7a52-0000-4000-8000-0000000001{n:02}") for n in range(4)]
    pids = [path_pid(path) for path in guard_report.folder(post.state_dir).iterdir()]
    total_kb = sum(_pss_kb(pid) for pid in [*pids, keeper_of(pids[0])])
    for guard in guards:
        guard.dismiss()
        guard.__exit__(None, None, None)
    assert len(pids) == len(guards)
    assert total_kb < 40 * 1024


def path_pid(path: Path) -> int:
    found = re.search(r'"pid": (\d+)', path.read_text())
    assert found is not None
    return int(found[1])


def keeper_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _pss_kb(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
