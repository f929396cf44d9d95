from collections.abc import Iterator
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
def relay(lab: None, tmp_path: Path) -> Iterator[LibvirtRelay]:
    relay = LibvirtRelay(tmp_path).open()
    yield relay
    relay.close()
