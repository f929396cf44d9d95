"""The hand is a process that can be lost: whatever it does, the caller gets its result or a clear error, and nothing of it is left."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from service.errors import (
    ForeignEntry,
    JobCancelled,
    RepositoryFull,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryReadOnly,
    RepositoryRefused,
    RepositoryUnusable,
    StillpointError,
)
from service.repository import hand as hand_module
from service.repository import hand_start
from service.repository.hand import Hand, Progress
from tests.repository.processes import pids_in, runs, until_none_runs

ROOT = Path(__file__).parents[2]
ODD = "a b,c:d\ne\t\"'\\ü\udce4"


def _pid(hand: Hand) -> int:
    return int(hand.call("echo", {})["pid"])


def test_a_step_gets_its_arguments_and_its_result_comes_back(hand: Hand) -> None:
    result = hand.call("echo", {"text": ODD, "number": 2**60, "nothing": None, "list": [1, {"a": True}]})
    assert (result["text"], result["number"], result["nothing"], result["list"]) == (ODD, 2**60, None, [1, {"a": True}])


def test_all_calls_are_done_by_one_process(hand: Hand) -> None:
    assert _pid(hand) == _pid(hand)


def test_a_process_that_was_begun_does_the_first_call(hand: Hand) -> None:
    hand.begin()
    begun = hand.child_pid
    assert begun is not None
    assert _pid(hand) == begun


def test_what_prevents_the_begin_is_raised_by_the_first_call(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_start, "interpreter", lambda: "/no/such/program")
    hand.begin()
    assert hand.child_pid is None
    with pytest.raises(RepositoryUnusable):
        hand.call("echo", {})


def test_arguments_and_results_larger_than_a_pipe_pass(hand: Hand) -> None:
    text = "ä" * 500_000
    assert hand.call("large", {"text": text})["text"] == text * 2


def test_it_runs_with_the_python_that_has_libnbd(hand: Hand) -> None:
    assert hand.call("echo", {})["python"] == hand_start.SYSTEM_PYTHON


def test_without_libnbd_it_runs_with_the_python_of_the_service(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_start, "SYSTEM_PYTHON", "/usr/bin/false")
    hand_start.interpreter.cache_clear()
    try:
        assert hand.call("echo", {})["python"] == sys.executable
    finally:
        hand_start.interpreter.cache_clear()


@pytest.mark.parametrize("step", ["silent", "stopped"])
def test_a_hand_that_is_silent_is_killed_with_its_programs(hand: Hand, tmp_path: Path, step: str) -> None:
    with pytest.raises(RepositoryNotAnswering) as raised:
        hand.call(step, {"pids": str(tmp_path / "pids")}, silence_s=3)
    assert raised.value.facts["step"] == step
    assert raised.value.facts["silent_s"] >= 3
    until_none_runs(pids_in(tmp_path / "pids"))


def test_after_a_hand_was_killed_the_next_call_starts_another_one(hand: Hand, tmp_path: Path) -> None:
    earlier = _pid(hand)
    with pytest.raises(RepositoryNotAnswering):
        hand.call("silent", {"pids": str(tmp_path / "pids")}, silence_s=0.1)
    assert _pid(hand) != earlier


def test_a_step_that_says_something_is_not_silent(hand: Hand, tmp_path: Path) -> None:
    began, until_there = time.monotonic(), tmp_path / "until"

    def after_the_silence() -> None:
        if time.monotonic() > began + 4:
            until_there.touch()

    arguments = {"pids": str(tmp_path / "pids"), "until": str(until_there)}
    assert hand.call("working", arguments, silence_s=3, safe_point=after_the_silence)["done"] > 0


def test_a_caller_that_was_away_does_not_count_that_as_silence(hand: Hand, tmp_path: Path) -> None:
    until_there = tmp_path / "until"

    def away() -> None:
        if (tmp_path / "pids").exists():
            time.sleep(3.5)
            until_there.touch()

    assert hand.call("working", {"pids": str(tmp_path / "pids"), "until": str(until_there)}, silence_s=3, safe_point=away)["done"] > 0


def test_a_hand_that_is_killed_takes_its_programs_with_it(hand: Hand, tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable) as raised:
        hand.call("killed", {"pids": str(tmp_path / "pids")})
    assert signal.SIGKILL.name in raised.value.facts["reason"]
    until_none_runs(pids_in(tmp_path / "pids"))


def test_a_hand_that_ends_says_how_and_its_last_words(hand: Hand) -> None:
    with pytest.raises(RepositoryUnusable) as raised:
        hand.call("ended", {})
    assert "7" in raised.value.facts["reason"]
    assert "the last words" in raised.value.facts["reason"]


def test_a_hand_that_was_killed_between_two_calls_is_started_again(hand: Hand) -> None:
    pid = _pid(hand)
    os.kill(pid, signal.SIGKILL)
    assert _pid(hand) != pid


def test_a_hand_whose_end_cannot_be_seen_yet_is_started_again_as_it_takes_no_step(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that a killed process runs until the last of its threads has ended."""
    pid = _pid(hand)
    os.kill(pid, signal.SIGKILL)
    until_none_runs([pid])
    monkeypatch.setattr(hand_start.Child, "is_ended", lambda child: False)
    assert _pid(hand) != pid


def test_a_step_that_was_begun_is_not_begun_again(hand: Hand, tmp_path: Path) -> None:
    _pid(hand)
    with pytest.raises(RepositoryUnusable):
        hand.call("killed", {"pids": str(tmp_path / "pids"), "times": str(tmp_path / "times")})
    assert (tmp_path / "times").read_text() == "x"


def test_a_hand_that_is_closed_before_it_takes_the_step_is_not_started_again(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    _pid(hand)
    monkeypatch.setattr(hand_module, "start", lambda *arguments: pytest.fail("a process was started"))
    # Stopped, it cannot take the step.
    os.kill(hand.child_pid or 0, signal.SIGSTOP)
    with pytest.raises(RepositoryUnusable):
        hand.call("echo", {}, safe_point=_second_time(hand.close))


def _second_time(act: Callable[[], None]) -> Callable[[], None]:
    """The first safe point is before the call begins."""
    passed = count()
    return lambda: act() if next(passed) == 1 else None


def test_a_hand_that_cannot_be_started_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_start, "interpreter", lambda: str(tmp_path / "absent"))
    with Hand(str(tmp_path)) as hand, pytest.raises(RepositoryUnusable):
        hand.call("look", {"path": str(tmp_path)})


def test_a_host_that_is_too_busy_to_start_it_is_not_a_storage_that_hangs(
    tmp_path: Path, trial_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\nsleep 2\nexec /usr/bin/python3 "$@"\n')
    slow.chmod(0o700)
    monkeypatch.setattr(hand_start, "interpreter", lambda: str(slow))
    with Hand(str(tmp_path)) as busy:
        assert busy.call("echo", {}, silence_s=1)["pid"]


def test_a_process_that_never_begins_is_killed_and_says_nothing_of_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 1000\n")
    stuck.chmod(0o700)
    monkeypatch.setattr(hand_start, "interpreter", lambda: str(stuck))
    monkeypatch.setattr(hand_module, "START_S", 1.0)
    with Hand(str(tmp_path)) as hand, pytest.raises(RepositoryUnusable):
        hand.call("echo", {}, silence_s=0.5)


def test_what_the_safe_point_raises_ends_the_hand_and_passes(hand: Hand, tmp_path: Path) -> None:
    def cancelled() -> None:
        if (tmp_path / "pids").exists():
            raise JobCancelled(phase="transfer")

    with pytest.raises(JobCancelled):
        hand.call("working", {"pids": str(tmp_path / "pids"), "until": "/never"}, safe_point=cancelled)
    until_none_runs(pids_in(tmp_path / "pids"))


def test_a_call_that_is_cancelled_before_it_begins_starts_nothing(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled() -> None:
        raise JobCancelled(phase="transfer")

    monkeypatch.setattr(hand_start, "interpreter", lambda: pytest.fail("a process was started"))
    with pytest.raises(JobCancelled):
        hand.call("echo", {}, safe_point=cancelled)


def test_the_safe_point_is_passed_several_times_a_second(hand: Hand, tmp_path: Path) -> None:
    passed: list[float] = []

    def count() -> None:
        passed.append(time.monotonic())
        if len(passed) == 5:
            (tmp_path / "until").touch()

    hand.call("working", {"pids": str(tmp_path / "pids"), "until": str(tmp_path / "until")}, safe_point=count)
    assert len(passed) >= 5


def test_closing_from_another_thread_ends_a_call(hand: Hand, tmp_path: Path) -> None:
    raised: list[StillpointError] = []

    def call() -> None:
        try:
            hand.call("silent", {"pids": str(tmp_path / "pids")})
        except StillpointError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    pids = pids_in(tmp_path / "pids")
    hand.close()
    thread.join(30)
    assert [type(error) for error in raised] == [RepositoryUnusable]
    until_none_runs(pids)


def test_a_hand_does_one_call_at_a_time(hand: Hand, tmp_path: Path) -> None:
    def again() -> None:
        with pytest.raises(RuntimeError):
            hand.call("echo", {})
        (tmp_path / "until").touch()

    hand.call("working", {"pids": str(tmp_path / "pids"), "until": str(tmp_path / "until")}, safe_point=again)


def test_leaving_the_context_ends_the_process(trial_steps: None, tmp_path: Path) -> None:
    with Hand(str(tmp_path)) as hand:
        pid = _pid(hand)
    assert not runs(pid)


WORKER = """
import sys
from service.repository import hand as hand_module
from service.repository import hand_start
from service.repository.hand import Hand
hand_start.PROGRAM = "tests.repository.trial_hand"
Hand(sys.argv[1]).call("silent", {"pids": sys.argv[1] + "/pids"})
"""


def test_the_hand_and_its_programs_die_with_their_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], cwd=ROOT)
    try:
        pids = pids_in(tmp_path / "pids")
        assert all(runs(pid) for pid in pids)
    finally:
        worker.kill()
        worker.wait()
    until_none_runs(pids)


def test_progress_comes_with_a_rate(hand: Hand) -> None:
    seen: list[Progress] = []
    hand.set_pace(2_000_000)
    hand.call("paced", {"pieces": 12, "bytes": 100_000}, on_progress=seen.append)
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (1_200_000, 1_200_000)
    assert [each.done_bytes for each in seen] == sorted(each.done_bytes for each in seen)
    rate = seen[-1].rate_bytes_s
    assert rate is not None
    assert 0 < rate < 4_000_000


def test_a_step_is_not_faster_than_its_pace(hand: Hand) -> None:
    hand.set_pace(1_000_000)
    # The first piece is free, and a tenth of a second may be made up for.
    assert hand.call("paced", {"pieces": 10, "bytes": 100_000})["took_s"] >= 0.7


def test_without_a_pace_a_step_does_not_wait(hand: Hand) -> None:
    hand.set_pace(1)
    hand.set_pace(None)
    hand.call("paced", {"pieces": 10, "bytes": 1 << 40}, silence_s=30)


def test_a_step_that_is_paused_is_not_silent_and_continues_when_told(hand: Hand) -> None:
    began = time.monotonic()
    hand.set_pace(0)

    def continue_later() -> None:
        if time.monotonic() > began + 3:
            hand.set_pace(None)

    assert hand.call("paced", {"pieces": 1, "bytes": 1}, silence_s=2, safe_point=continue_later)["took_s"] > 1


def test_the_pace_holds_for_the_hand_that_is_started_next(hand: Hand) -> None:
    hand.set_pace(1_000_000)
    _pid(hand)
    hand.close()
    assert hand.call("paced", {"pieces": 10, "bytes": 100_000})["took_s"] >= 0.7


def test_an_error_of_a_step_is_raised_with_its_facts_and_the_hand_continues(hand: Hand) -> None:
    pid = _pid(hand)
    with pytest.raises(RepositoryFull) as raised:
        hand.call("full", {"path": ODD})
    assert raised.value.facts == {"path": ODD, "needed_bytes": 3, "free_bytes": 2}
    assert _pid(hand) == pid


def test_a_fault_of_the_hand_itself_is_told_and_the_hand_continues(hand: Hand) -> None:
    pid = _pid(hand)
    with pytest.raises(RepositoryUnusable) as raised:
        hand.call("broken", {})
    assert "ZeroDivisionError" in raised.value.facts["reason"]
    assert _pid(hand) == pid


def test_a_step_that_there_is_not_is_told(hand: Hand) -> None:
    with pytest.raises(RepositoryUnusable):
        hand.call("no such step", {})


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, RepositoryFull),
        (errno.EDQUOT, RepositoryFull),
        (errno.EROFS, RepositoryReadOnly),
        (errno.EACCES, RepositoryReadOnly),
        (errno.ESTALE, RepositoryGone),
        (errno.ENOTCONN, RepositoryGone),
        (errno.ETIMEDOUT, RepositoryNotAnswering),
        (errno.EIO, RepositoryRefused),
        (errno.ELOOP, ForeignEntry),
    ],
)
def test_each_error_of_the_system_has_its_meaning(hand: Hand, tmp_path: Path, number: int, kind: type[StillpointError]) -> None:
    with pytest.raises(kind):
        hand.call("refused", {"errno": number, "path": str(tmp_path)})


def test_nothing_that_a_step_or_a_program_prints_is_taken_for_its_result(hand: Hand) -> None:
    assert hand.call("prints", {})["from"] == "result"
