"""A worker that is told to stop while it still starts stops all the same."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.db.engine import Database, open_engine
from tests.process.test_several_hosts import LIBVIRT, QUICK, instance, wait_for
from tests.service_process import ServiceProcess

STARTS = 6


@pytest.fixture
def database(new_sqlite_url: str) -> Iterator[Database]:
    opened = Database(open_engine(new_sqlite_url))
    yield opened
    opened.dispose()


def test_no_signal_is_lost_while_the_keeper_is_started(new_sqlite_url: str, database: Database, tmp_path: Path) -> None:
    for number in range(STARTS):
        host = f"hv{number}"
        worker = ServiceProcess(tmp_path / host, libvirt_uri=LIBVIRT, host_id=host, command="worker", database_url=new_sqlite_url, **QUICK)
        with worker:
            wait_for(is_registered(database, host), "the worker")
            worker.signal(signal.SIGTERM)
            wait_for(worker.has_ended, "the end of the worker", 60)


def is_registered(database: Database, host: str) -> Callable[[], bool]:
    return lambda: instance(database, host) is not None
