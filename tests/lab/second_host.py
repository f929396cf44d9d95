"""A second host for live migration: another libvirtd on this machine, with sockets, definitions, mounts, processes and a name of its own.

It sees the files of this machine, so that disks need not be copied. Whatever runs on it ends with the process that made it. Needs root.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from tests.lab import daemon
from tests.lab.command import program
from tests.lab.guests import LabGuest
from tests.lab.places import LabError, open_dir, user_dir

_OWN = {"run": "/run/libvirt", "etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt", "cache": "/var/cache/libvirt"}
"""What libvirtd and virtlogd of the second host have instead of this machine's."""
_START_TIMEOUT_S = 30.0
_MIGRATION_PORTS = range(24_000, 24_100)
"""Below those that the kernel gives to clients (ip_local_port_range): a client of a test may have any of them at that moment."""


class SecondHost:
    """`uri` is for every client on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"lab-second-{os.getpid()}"
        self.uri = f"qemu+unix:///system?socket={folder / 'run' / 'libvirt-sock'}"
        self.connection: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for name, place in _OWN.items():
            if name == "etc":
                shutil.copytree(place, self.folder / name, ignore=lambda _folder, names: [one for one in names if one.endswith(".xml")])
            else:
                open_dir(self.folder / name)
        with (self.folder / "etc/libvirtd.conf").open("a") as settings:
            settings.write(f'\nhost_uuid = "{uuid.uuid4()}"\n')
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        self.connection = self._connected()

    def stop(self) -> None:
        if self.connection is not None:
            with suppress(libvirt.libvirtError):
                self.connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _command(self) -> list[str]:
        mounts = "; ".join(f"mkdir -p {place}; mount --bind {self.folder / name} {place}" for name, place in _OWN.items())
        begin = f"mount --make-rprivate /; {mounts}; hostname {self.name}"
        virtlogd = f"{program('virtlogd')} --pid-file {self.folder}/virtlogd.pid &"
        inside = [*daemon.without_kvm(), program("libvirtd"), "--pid-file", str(self.folder / "libvirtd.pid")]
        # The first process of a namespace collects its orphans: libvirt waits for the end of its guests.
        spaces = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*spaces, "sh", "-ec", f'{begin}; {virtlogd} exec "$@"', "sh", sys.executable, str(daemon.REAPER), *inside]

    def _connected(self) -> Any:
        deadline = time.monotonic() + _START_TIMEOUT_S
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError as error:
                if time.monotonic() > deadline:
                    log = (self.folder / "log.txt").read_text(errors="replace")
                    raise LabError(f"the second host did not start ({error}): {log[-1500:]}") from error
            time.sleep(0.05)


@contextmanager
def second_host() -> Iterator[SecondHost]:
    if os.geteuid() != 0:
        raise LabError("a second host needs root")
    folder = open_dir(user_dir() / f"second-{os.getpid()}")
    host = SecondHost(folder)
    try:
        host.start()
        yield host
    finally:
        host.stop()
        shutil.rmtree(folder, ignore_errors=True)


def migrate(guest: LabGuest, host: SecondHost, *, keeps_definition: bool = False) -> Any:
    """Live, on the same files. Returns the domain on the second host, where it is persistent. Its console goes to another file."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNSAFE
    if not keeps_definition:
        flags |= libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    there = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
    for source in [*there.iterfind("devices/serial/source"), *there.iterfind("devices/console/source")]:
        source.set("path", str(guest.folder / "serial.second.log"))
    asked = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp:127.0.0.1:{_free_port()}",
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: ElementTree.tostring(there, encoding="unicode"),
    }
    return guest.domain.migrate3(host.connection, asked, flags)


def _free_port() -> int:
    for port in _MIGRATION_PORTS:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("0.0.0.0", port))
            return port
    raise LabError(f"each port from {_MIGRATION_PORTS.start} to {_MIGRATION_PORTS.stop - 1} is in use")
