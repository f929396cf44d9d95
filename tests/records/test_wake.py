"""A loop that waits is woken at once, and no wake is lost."""

import threading
import time

from service.records.wake import Wake


def test_a_waiting_loop_is_woken_at_once() -> None:
    wake = Wake()
    timer = threading.Timer(0.05, wake.wake)
    started = time.monotonic()
    timer.start()
    assert wake.wait(30) is True
    assert time.monotonic() - started < 5
    timer.join()


def test_without_a_wake_the_time_passes() -> None:
    assert Wake().wait(0.01) is False


def test_a_wake_that_comes_before_the_wait_is_kept_for_it_and_used_once() -> None:
    wake = Wake()
    wake.wake()
    wake.wake()
    assert wake.wait(30) is True
    assert wake.wait(0.01) is False
