import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab.daemon import uri
from tests.libvirt_relay import LibvirtRelay
from tests.service_process import ServiceProcess


@pytest.fixture(scope="module")
def service(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One service for the tests of a module; each test brings its own guest."""
    with ServiceProcess(tmp_path_factory.mktemp("service"), libvirt_uri=uri()) as process:
        yield process


@pytest.fixture
def another_guest_each_time(service: ServiceProcess) -> None:
    """Tests play one simulated Windows after the other in one domain: what is remembered of the last one is forgotten."""
    with closing(sqlite3.connect(service.state_dir / "stillpoint.db", timeout=10)) as database, database:
        database.execute("DELETE FROM guest_memories")


@pytest.fixture
def relay(lab: None, tmp_path: Path) -> Iterator[LibvirtRelay]:
    relay = LibvirtRelay(tmp_path).open()
    yield relay
    relay.close()
