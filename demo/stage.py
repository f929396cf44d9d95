"""What the demo plays on: a libvirt daemon, a guest, a service. Everything that was started is stopped at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.screen import Screen
from tests.lab.daemon import Daemon, uri
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.windows.guest import WindowsGuest, windows_options
from tests.service_process import ServiceProcess

#: Its program confirms what it wrote now and then, so that the demo knows which records may not be lost.
LINUX = GuestOptions(name="lab-demo", meter={"sync_every": 20})
WINDOWS = windows_options(name="lab-demo-windows")


@contextmanager
def libvirt(screen: Screen) -> Iterator[None]:
    daemon = Daemon()
    daemon.ensure()
    try:
        screen.fact("libvirt", uri())
        yield
    finally:
        daemon.stop()


@contextmanager
def linux_guest(screen: Screen) -> Iterator[LabGuest]:
    """A guest with Debian's own qemu-guest-agent, and a program that writes to its disk all the time."""
    started = time.monotonic()
    guest = LabGuest(LINUX)
    try:
        guest.start_and_wait()
        what = f"{guest.name}: QEMU with Debian's kernel and qemu-guest-agent, one disk with ext4, a program that writes all the time"
        screen.fact("guest", f"{what}; its agent answered after {time.monotonic() - started:.1f} s")
        yield guest
    finally:
        guest.destroy()


@contextmanager
def windows_guest(screen: Screen, scenario: str) -> Iterator[WindowsGuest]:
    """No Windows: a guest whose agent is a program on this machine that answers as the one of Windows does."""
    started = time.monotonic()
    guest = WindowsGuest(scenario, guest=LabGuest(WINDOWS))
    try:
        guest.start()
        what = f"{guest.name}: real QEMU, real libvirt, and a SIMULATED Windows agent; no Windows runs here"
        screen.line()
        screen.fact("guest", f"{what}. It answered after {time.monotonic() - started:.1f} s")
        yield guest
    finally:
        guest.destroy()


@contextmanager
def service(screen: Screen) -> Iterator[ServiceProcess]:
    """`stillpoint all` with SQLite in a folder of its own."""
    started = time.monotonic()
    with TemporaryDirectory(prefix="stillpoint-demo-") as folder:
        process = ServiceProcess(Path(folder), libvirt_uri=uri(), host_id="demo")
        try:
            process.start()
            where = f"stillpoint all, http://127.0.0.1:{process.port}, SQLite in {folder}"
            screen.fact("service", f"{where}; ready after {time.monotonic() - started:.1f} s")
            yield process
        finally:
            process.stop()
