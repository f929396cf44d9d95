"""Guests with the Windows agent as pytest fixtures."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.windows.guest import WindowsGuest, windows_options
from tests.lab.windows.scenario import Scenario

MakeWindowsGuest = Callable[..., WindowsGuest]


@pytest.fixture
def make_windows_guest(make_guest: MakeGuest) -> Iterator[MakeWindowsGuest]:
    """`make(scenario, disks=1)`: a guest that is not started yet; all are removed after the test."""
    made: list[WindowsGuest] = []

    def make(scenario: Scenario | str = "healthy-2022", *, disks: int = 1) -> WindowsGuest:
        made.append(WindowsGuest(scenario, guest=make_guest(windows_options(disks=disks))))
        return made[-1]

    yield make
    for guest in made:
        guest.stop()


@pytest.fixture(scope="module")
def windows_module_guest(lab: None) -> Iterator[WindowsGuest]:
    guest = WindowsGuest("healthy-2022", guest=LabGuest(windows_options(name=f"lab-t-windows-{os.getpid()}")))
    try:
        yield guest.start()
    finally:
        guest.destroy()


@pytest.fixture
def windows_guest(windows_module_guest: WindowsGuest) -> WindowsGuest:
    """One running guest for a module's tests that leave its disks as they were. Begin with `play`."""
    windows_module_guest.play("healthy-2022")
    return windows_module_guest
