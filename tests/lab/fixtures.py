"""The lab as pytest fixtures. A lab that cannot run fails the tests that need it, and says why."""

import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.lab import images
from tests.lab.daemon import Daemon
from tests.lab.guests import LabGuest, remove_stale_guests
from tests.lab.options import GuestOptions
from tests.lab.places import LabError

_PREFIX = "lab-t-"

MakeGuest = Callable[[GuestOptions], LabGuest]


@pytest.fixture(scope="session")
def lab() -> Iterator[None]:
    """Boot files built and a libvirt daemon answering."""
    if os.environ.get("STILLPOINT_LAB") == "off" and os.environ.get("CI") != "true":
        pytest.skip("STILLPOINT_LAB=off")
    daemon = Daemon()
    try:
        images.build()
        daemon.ensure()
        remove_stale_guests(_PREFIX)
    except LabError as reason:
        pytest.fail(f"the lab cannot run: {reason}", pytrace=False)
    yield
    daemon.stop()


@pytest.fixture
def make_guest(lab: None, request: pytest.FixtureRequest) -> Iterator[MakeGuest]:
    """Makes guests that are not started yet and removes them after the test. Their names are replaced by ones of the test's own."""
    made: list[LabGuest] = []

    def make(options: GuestOptions) -> LabGuest:
        guest = LabGuest(options.named(_name(request.node.name, len(made))))
        made.append(guest)
        return guest

    yield make
    for guest in made:
        guest.destroy()


@pytest.fixture
def lab_guest(make_guest: MakeGuest) -> LabGuest:
    """A fresh running guest whose agent answers, for tests that change its disks."""
    return make_guest(GuestOptions()).start_and_wait()


@pytest.fixture(scope="module")
def module_guest(lab: None, request: pytest.FixtureRequest) -> Iterator[LabGuest]:
    guest = LabGuest(GuestOptions(name=_name(request.module.__name__.rpartition(".")[2], 0)))
    try:
        yield guest.start_and_wait()
    finally:
        guest.destroy()


@pytest.fixture
def shared_guest(module_guest: LabGuest) -> Iterator[LabGuest]:
    """One running guest for the tests of a module that leave its disks as they were. It is thawed after each."""
    yield module_guest
    module_guest.thaw_for_sure()


def _name(test: str, number: int) -> str:
    """Unlike any other's, also when several test runs share the machine; the process id lets a later run clear up."""
    short = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:20].rstrip("-")
    return f"{_PREFIX}{short}-{number}-{os.getpid()}"
