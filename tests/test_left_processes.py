"""What a killed run of tests leaves running is ended by the next one, and nothing else is."""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.left_processes import MARK, end_those_of_killed_runs, mark_of, namespace, without_mark

Start = Callable[[dict[str, str]], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that does nothing for a long time."""
    started: list[subprocess.Popen[bytes]] = []

    def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def mark_of_a_run_that_is_gone() -> str:
    run = subprocess.Popen(["sleep", "600"])
    mark = mark_of(run.pid)
    run.kill()
    run.wait()
    return mark


def test_a_process_of_a_run_that_is_gone_is_ended(start: Start) -> None:
    left = start({**os.environ, MARK: mark_of_a_run_that_is_gone()})
    assert left.pid in end_those_of_killed_runs()
    assert left.wait(60) == -9


def test_a_process_whose_run_had_the_id_of_another_process_is_ended(start: Start) -> None:
    left = start({**os.environ, MARK: f"{os.getpid()} 1 {namespace()}"})
    assert left.pid in end_those_of_killed_runs()


def test_a_process_of_a_run_in_another_namespace_stays(start: Start) -> None:
    elsewhere = start({**os.environ, MARK: f"{os.getpid()} 1 pid:[1]"})
    assert elsewhere.pid not in end_those_of_killed_runs()
    assert elsewhere.poll() is None


def test_processes_of_this_run_and_of_nobody_stay(start: Start) -> None:
    ours, nobodys = start(dict(os.environ)), start(without_mark())
    assert MARK in os.environ
    assert end_those_of_killed_runs().isdisjoint({ours.pid, nobodys.pid})
    assert (ours.poll(), nobodys.poll()) == (None, None)
