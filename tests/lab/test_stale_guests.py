"""What a killed test run leaves in libvirt is gone before the next run makes its first guest; no libvirtd is needed for that."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.lab import guests
from tests.lab.guests import remove_stale_guests

DOMAIN = """<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"""
NO_PROCESS = 2**22 + 1
"""Above every process id of Linux."""


class Unclosed:
    """libvirt's own test driver: a host in memory, that lives as long as its connection.

    The host of `test:///default` is shared by all connections of a process: it would show what an earlier test left. The host of a
    file belongs to one connection.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "host.xml"
        file.write_text("<node/>")
        self._connection = libvirt.open(f"test://{file}")

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    made = Unclosed(tmp_path)
    monkeypatch.setattr(guests, "connect", lambda: made)
    # The test driver knows no checkpoints.
    monkeypatch.setattr(guests, "_UNDEFINE", 0)
    yield made


def define(host: Any, *names: str) -> None:
    for name in names:
        host.defineXML(DOMAIN.format(name=name))


def left(host: Any) -> set[str]:
    return {domain.name() for domain in host.listAllDomains() if domain.name().startswith("lab-")}


def test_a_guest_of_a_run_that_is_no_more_is_removed(host: Any) -> None:
    define(host, f"lab-t-a-{NO_PROCESS}", "lab-linux")
    remove_stale_guests("lab-t-")
    assert left(host) == {"lab-linux"}


def test_a_guest_of_another_run_stays(host: Any) -> None:
    define(host, f"lab-t-a-{os.getppid()}")
    remove_stale_guests("lab-t-")
    assert left(host) == {f"lab-t-a-{os.getppid()}"}


def test_a_guest_with_the_id_of_this_run_which_has_made_none_yet_is_of_a_killed_run(host: Any) -> None:
    define(host, f"lab-t-a-{os.getpid()}")
    remove_stale_guests("lab-t-")
    assert left(host) == set()
