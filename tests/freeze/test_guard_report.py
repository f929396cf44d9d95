"""What a thaw guard left in its file, whatever became of the guard while it wrote."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.freeze import guard_report
from service.model.window import GuardReason, GuardReport, GuardState

NO_PROCESS = 2**22 + 1
"""Above every number that Linux gives to a process: nothing that is killed by it comes to harm."""
THAWED: dict[str, Any] = {
    "job_id": "j1",
    "domain": "db1",
    "pid": NO_PROCESS,
    "state": "thawed",
    "reason": "worker_gone",
    "count": 2,
    "message": None,
    "attempts": 1,
    "thaw_sent_at": "2026-11-20T10:00:00.000000Z",
    "thawed_at": "2026-11-20T10:00:00.041000Z",
}


def write(state_dir: Path, content: bytes | dict[str, Any]) -> Path:
    path = guard_report.path_of(state_dir, "j1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def read(state_dir: Path) -> GuardReport:
    report = guard_report.read(state_dir, "j1")
    assert report is not None
    return report


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Path]:
    """A guard that still runs: it holds the lock of its file."""
    with write(tmp_path, {**THAWED, "state": "thawing", "count": None, "thawed_at": None}).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield tmp_path


def test_a_job_without_a_guard_has_no_report(tmp_path: Path) -> None:
    assert guard_report.read(tmp_path, "j1") is None


def test_every_field_is_read(tmp_path: Path) -> None:
    write(tmp_path, THAWED)
    report = read(tmp_path)
    assert report == GuardReport(**{**THAWED, "state": GuardState.thawed, "reason": GuardReason.worker_gone})
    assert report.as_document() == {**THAWED, "is_alive": False, "fault": None}


@pytest.mark.parametrize("padding", [b"\0" * 4000, b"   \n"])
def test_what_was_preallocated_and_not_written_is_no_fault(tmp_path: Path, padding: bytes) -> None:
    write(tmp_path, json.dumps(THAWED).encode() + padding)
    assert read(tmp_path).state is GuardState.thawed


def test_a_guard_is_alive_while_it_holds_the_lock(alive: Path) -> None:
    assert read(alive).is_alive
    assert read(alive).is_alive, "a look must not take the lock away"


def test_a_guard_that_is_dead_is_not_alive(tmp_path: Path) -> None:
    write(tmp_path, THAWED)
    assert not read(tmp_path).is_alive


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "zeros": b"\0" * 4096,
    "half a line": json.dumps(THAWED).encode()[:50],
    "no JSON": b"\xff\xfe\x00nonsense",
    "a list": b"[1, 2]",
    "a number": b"7",
    "an unknown state": json.dumps({**THAWED, "state": "asleep"}).encode(),
    "an unknown reason": json.dumps({**THAWED, "reason": "whim"}).encode(),
    "a count that is none": json.dumps({**THAWED, "count": "two"}).encode(),
    "a pid that is true": json.dumps({**THAWED, "pid": True}).encode(),
    "without a state": json.dumps({"job_id": "j1", "domain": "db1", "pid": 1}).encode(),
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_fact_and_no_exception(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, content)
    report = read(tmp_path)
    assert report.state is None
    assert report.fault
    assert report.fault in guard_report.as_sentence(report)
    assert not report.is_settled


def test_a_file_that_cannot_be_read_is_a_fact(tmp_path: Path) -> None:
    guard_report.path_of(tmp_path, "j1").mkdir(parents=True)
    assert os.strerror(errno.EISDIR) in str(read(tmp_path).fault)


def test_removed_it_is_gone_and_removing_it_twice_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path, THAWED)
    guard_report.remove(tmp_path, "j1")
    guard_report.remove(tmp_path, "j1")
    assert guard_report.read(tmp_path, "j1") is None


TOLD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "thawed": ({}, ("41 ms", "2 filesystems")),
    "at the deadline": ({"reason": "deadline"}, ("41 ms", "2 filesystems")),
    "answered with an error": ({"count": None, "message": "fsfreeze hook has failed"}, ("41 ms", "fsfreeze hook has failed")),
    "without times": ({"thaw_sent_at": "yesterday"}, ("2 filesystems",)),
    "died early": ({"state": "watching"}, ("watching",)),
    "died thawing": ({"state": "thawing"}, ("thawing",)),
}


@pytest.mark.parametrize(("said", "facts"), TOLD.values(), ids=TOLD.keys())
def test_its_deed_is_told_in_one_sentence_with_its_facts(tmp_path: Path, said: dict[str, Any], facts: tuple[str, ...]) -> None:
    write(tmp_path, {**THAWED, **said})
    sentence = guard_report.as_sentence(read(tmp_path))
    assert [fact for fact in facts if fact not in sentence] == []
    assert (sentence.count("."), sentence[-1]) == (1, ".")


def test_each_deed_is_told_in_a_sentence_of_its_own(tmp_path: Path) -> None:
    told = set()
    for said, _ in TOLD.values():
        write(tmp_path, {**THAWED, **said})
        told.add(guard_report.as_sentence(read(tmp_path)))
    assert len(told) == len(TOLD)


def test_a_guard_that_still_tries_is_told_with_its_process(alive: Path) -> None:
    sentence = guard_report.as_sentence(read(alive))
    assert str(NO_PROCESS) in sentence
    assert "thawing" in sentence
