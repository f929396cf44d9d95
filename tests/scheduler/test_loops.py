"""The threads of the looks: which there are, that they look when the service starts, and that no error ends them."""

import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.config import Settings
from service.db.engine import Database
from service.errors import DatabaseUnavailable
from service.scheduler.loop import Loop
from service.scheduler.loops import loops_of
from service.scheduler.proving import ProvingLooks
from service.scheduler.pruning import PruningLooks
from service.scheduler.retention import RetentionLooks
from service.scheduler.scheduling import Scheduler
from service.scheduler.sending import SendingLooks
from service.scheduler.verification import VerificationLooks

Lines = list[MutableMapping[str, Any]]
LOOKS: dict[str, type[Any]] = {
    "pruning": PruningLooks,
    "verification": VerificationLooks,
    "retention": RetentionLooks,
    "proving": ProvingLooks,
    "scheduling": Scheduler,
    "sending": SendingLooks,
}


@pytest.fixture
def said() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.parametrize("name", LOOKS)
def test_each_look_has_a_thread_that_begins_with_the_service(database: Database, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    looked = threading.Event()

    def look(_: object) -> float:
        looked.set()
        return 60.0

    monkeypatch.setattr(LOOKS[name], "look", look)
    stopping = threading.Event()
    (loop,) = (each for each in loops_of(Settings(state_dir=Path("/nowhere")), database, lambda: None, stopping) if each.name == name)
    loop.start()
    assert looked.wait(60)
    assert stopping.is_set() is False
    loop.stop()
    assert loop.is_alive is False


def test_a_process_without_a_scheduler_has_the_other_looks(database: Database) -> None:
    settings = Settings(state_dir=Path("/nowhere"), scheduler="off")
    names = [loop.name for loop in loops_of(settings, database, lambda: None, threading.Event())]
    assert names == [name for name in LOOKS if name not in ("scheduling", "sending")]


def test_one_stop_ends_the_look_of_every_loop() -> None:
    """A service that ends waits for all of them together."""
    stopping, begun = threading.Event(), threading.Barrier(3)

    def look() -> None:
        begun.wait()
        stopping.wait()

    loops = [Loop.every(60.0, name, look, stopping) for name in ("one", "other")]
    for loop in loops:
        loop.start()
    begun.wait()
    loops[0].stop()
    loops[1].stop()
    assert [loop.is_alive for loop in loops] == [False, False]


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [(DatabaseUnavailable(reason="it is away"), "put_off", "warning"), (ValueError("a fault"), "failed", "error")],
)
@pytest.mark.parametrize("name", LOOKS)
def test_after_an_error_the_log_names_the_look_and_the_next_look_comes(
    said: Lines, name: str, error: Exception, event: str, level: str
) -> None:
    looked, errors = threading.Event(), [error]

    def look() -> float:
        if errors:
            raise errors.pop()
        looked.set()
        return 60.0

    loop = Loop(name, look, threading.Event(), failed_s=0.01)
    loop.start()
    assert looked.wait(60)
    loop.stop()
    assert [(line["event"], line["log_level"]) for line in said] == [(f"{name}_{event}", level)]
