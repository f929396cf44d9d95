"""What a step of the hand says while it works, and when."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from service.repository import report as report_module
from service.repository.report import SAY_AGAIN_S, Report

MUCH = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(report_module, "time", clock)
    yield clock


@pytest.fixture
def lines() -> list[Mapping[str, Any]]:
    return []


@pytest.fixture
def report(clock: Clock, lines: list[Mapping[str, Any]]) -> Report:
    return Report(lines.append)


def test_progress_that_comes_too_early_goes_with_the_next_line_of_any_kind(
    report: Report, clock: Clock, lines: list[Mapping[str, Any]]
) -> None:
    report.alive()
    report.progress(MUCH, 3 * MUCH)
    assert lines == [{"alive": True}]

    clock.now += SAY_AGAIN_S
    report.alive()
    assert lines[1:] == [{"alive": True, "done": MUCH, "total": 3 * MUCH}]


def test_only_the_newest_progress_is_said_and_once(report: Report, clock: Clock, lines: list[Mapping[str, Any]]) -> None:
    report.alive()
    report.progress(MUCH, 3 * MUCH)
    report.progress(2 * MUCH, 3 * MUCH)
    for _ in range(2):
        clock.now += SAY_AGAIN_S
        report.alive()
    assert lines == [{"alive": True}, {"alive": True, "done": 2 * MUCH, "total": 3 * MUCH}, {"alive": True}]


def test_the_end_is_said_at_once_and_nothing_older_after_it(report: Report, clock: Clock, lines: list[Mapping[str, Any]]) -> None:
    report.alive()
    report.progress(MUCH, 3 * MUCH)
    report.progress(3 * MUCH, 3 * MUCH)
    clock.now += SAY_AGAIN_S
    report.alive()
    assert lines == [{"alive": True}, {"done": 3 * MUCH, "total": 3 * MUCH}, {"alive": True}]


def test_lines_are_said_seldom(report: Report, clock: Clock, lines: list[Mapping[str, Any]]) -> None:
    for number in range(1000):
        report.progress(number, None)
        clock.now += SAY_AGAIN_S / 100
    assert 5 <= len(lines) <= 15
