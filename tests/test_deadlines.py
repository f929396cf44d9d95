"""Calls with a limit: what hangs is left behind in its helper thread, and nothing else waits for it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from service.deadlines import CallTimedOut, HelperThreads

SOON_S = 0.05
LONG_S = 10.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What the calls of a test hang on; open at its end."""
    opened = threading.Event()
    yield opened
    opened.set()


@pytest.fixture
def helpers() -> HelperThreads:
    return HelperThreads(max_hung_calls=2)


def wait_for_none_left(helpers: HelperThreads) -> None:
    deadline = time.monotonic() + LONG_S
    while helpers.left_behind():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def hang(helpers: HelperThreads, gate: threading.Event, lane: str = "db1") -> None:
    with pytest.raises(CallTimedOut):
        helpers.run(gate.wait, SOON_S, call="a call", lane=lane)


def test_the_result_and_the_error_of_a_call_reach_its_caller(helpers: HelperThreads) -> None:
    assert helpers.run(lambda: 7, LONG_S, call="a call", lane="db1") == 7
    with pytest.raises(ZeroDivisionError):
        helpers.run(lambda: 1 // 0, LONG_S, call="a call", lane="db1")


def test_a_call_that_hangs_is_given_up_at_its_limit_and_counted_until_it_returns(helpers: HelperThreads, gate: threading.Event) -> None:
    began = time.monotonic()
    with pytest.raises(CallTimedOut) as caught:
        helpers.run(gate.wait, SOON_S, call="virDomainGetState", lane="db1")
    assert SOON_S <= time.monotonic() - began < LONG_S
    assert (caught.value.call, caught.value.waited_s) == ("virDomainGetState", SOON_S)
    assert helpers.left_behind() == 1
    assert helpers.hangs("virDomainGetState", "db1")
    gate.set()
    wait_for_none_left(helpers)
    assert not helpers.hangs("virDomainGetState", "db1")


def test_a_lane_full_of_hung_calls_refuses_at_once_and_other_lanes_go_on(helpers: HelperThreads, gate: threading.Event) -> None:
    hang(helpers, gate)
    hang(helpers, gate)
    began = time.monotonic()
    with pytest.raises(CallTimedOut) as caught:
        helpers.run(lambda: 7, LONG_S, call="a call", lane="db1")
    assert caught.value.waited_s == 0
    assert time.monotonic() - began < LONG_S
    assert helpers.run(lambda: 8, LONG_S, call="a call", lane="db2") == 8
    gate.set()
    wait_for_none_left(helpers)
    assert helpers.run(lambda: 9, LONG_S, call="a call", lane="db1") == 9


def test_calls_one_after_the_other_share_one_thread(helpers: HelperThreads) -> None:
    threads = {helpers.run(threading.get_ident, LONG_S, call="a call", lane="db1") for _ in range(50)}
    assert len(threads) == 1


def test_a_thread_that_hangs_serves_nobody_until_its_call_returns(helpers: HelperThreads, gate: threading.Event) -> None:
    first = helpers.run(threading.get_ident, LONG_S, call="a call", lane="db1")
    hang(helpers, gate)
    assert helpers.run(threading.get_ident, LONG_S, call="a call", lane="db1") != first


def test_many_callers_at_once_each_get_their_own_answer(helpers: HelperThreads) -> None:
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(100):
            if helpers.run(lambda: number, LONG_S, call="a call", lane="db1") != number:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_a_call_returns_too_late_is_discarded_and_what_it_returns_in_time_is_not(
    helpers: HelperThreads, gate: threading.Event
) -> None:
    discarded: list[object] = []
    assert helpers.run(lambda: 7, LONG_S, call="open", lane="db1", discard=discarded.append) == 7
    with pytest.raises(CallTimedOut):
        helpers.run(lambda: (gate.wait(), "late")[1], SOON_S, call="open", lane="db1", discard=discarded.append)
    gate.set()
    deadline = time.monotonic() + LONG_S
    while not discarded and time.monotonic() < deadline:
        time.sleep(0.005)
    assert discarded == ["late"]


def program(text: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=20, check=True).stdout


def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    text = """
import os, warnings
from service.deadlines import HELPERS
warnings.simplefilter("ignore")
HELPERS.run(int, 5, call="a call", lane="db1")
child = os.fork()
if child == 0:
    os._exit(HELPERS.run(lambda: 7, 5, call="a call", lane="db1"))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert program(text) == "7\n"


def test_a_hung_call_does_not_hold_up_the_end_of_the_process() -> None:
    text = """
import threading
from service.deadlines import HELPERS, CallTimedOut
try:
    HELPERS.run(threading.Event().wait, 0.05, call="a call", lane="db1")
except CallTimedOut:
    print("given up")
"""
    assert "given up" in program(text)
