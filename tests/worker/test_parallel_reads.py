"""Reading many things side by side, one of which hangs."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from service.worker.parallel_reads import ParallelReads


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


def test_everything_is_read() -> None:
    assert ParallelReads[int](2).read({str(n): partial(int, n) for n in range(9)}, 5) == {str(n): n for n in range(9)}


def test_one_that_hangs_is_left_out_and_not_read_a_second_time_until_it_returns(gate: threading.Event) -> None:
    readers = ParallelReads[int](2)
    asked: list[str] = []

    def hang() -> int:
        asked.append("hung")
        gate.wait()
        return 1

    assert readers.read({"a": hang, "b": lambda: 2}, 0.05) == {"b": 2}
    began = time.monotonic()
    assert readers.read({"a": hang, "b": lambda: 3}, 60) == {"b": 3}
    assert time.monotonic() - began < 30
    assert asked == ["hung"]
    gate.set()
    deadline = time.monotonic() + 5
    while readers.read({"a": hang}, 5) != {"a": 1}:
        assert time.monotonic() < deadline


def test_an_error_of_one_reading_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        ParallelReads[int](2).read({"a": lambda: 1 // 0}, 5)
