"""The flush before the freeze: repeated while it takes long, and never in the way."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.freeze.preflush import MAX_ROUNDS, SHORT_ROUND_MS, Flush
from service.hypervisor.guest import Guest
from tests.fakes import FakeDisk, FakeDomain, agent_error


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


def _slow(_arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
    time.sleep((SHORT_ROUND_MS + 10) / 1000)
    return 0, b"", b""


def test_a_short_flush_is_enough(domain: FakeDomain) -> None:
    flushed = Flush(Guest(domain, "fake:///")).finish()
    assert (flushed.rounds, flushed.message) == (1, None)
    assert flushed.duration_ms < SHORT_ROUND_MS


def test_a_long_flush_left_time_for_new_dirty_pages_and_is_repeated_but_not_for_ever(domain: FakeDomain) -> None:
    domain.agent.programs["/bin/sync"] = _slow
    flushed = Flush(Guest(domain, "fake:///")).finish()
    assert (flushed.rounds, flushed.message) == (MAX_ROUNDS, None)


def test_the_flush_runs_while_the_host_does_something_else(domain: FakeDomain) -> None:
    flush = Flush(Guest(domain, "fake:///"))
    assert domain.agent.executed == ["/bin/sync"]
    assert "guest-exec-status" not in domain.log
    assert (flush.finish().rounds, domain.agent.executed) == (1, ["/bin/sync"])


def test_a_flush_that_began_long_before_the_freeze_is_repeated(domain: FakeDomain) -> None:
    flush = Flush(Guest(domain, "fake:///"))
    time.sleep((SHORT_ROUND_MS + 10) / 1000)
    assert flush.finish().rounds == 2


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda domain: domain.agent.blocked.add("guest-exec"), "guest-exec has been disabled"),
        (
            lambda domain: domain.fail_next("guest-exec-status", agent_error("guest-exec-status", "Invalid parameter 'pid'")),
            "Invalid parameter",
        ),
        (lambda domain: domain.agent.programs.update({"/bin/sync": lambda _arguments: (1, b"", b"")}), "sync exited with 1"),
        (lambda domain: domain.answer_next("guest-exec", {"return": {}}), "guest-exec"),
    ],
)
def test_a_failure_is_noted_and_not_raised(domain: FakeDomain, break_it: object, said: str) -> None:
    assert callable(break_it)
    break_it(domain)
    flushed = Flush(Guest(domain, "fake:///")).finish()
    assert flushed.rounds == 1
    assert said in (flushed.message or "")
