"""A lab guest: a libvirt domain of its own disks, and what tests ask of it."""

import base64
import json
import os
import shutil
import string
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

from tests.lab import boot as boots
from tests.lab import disks, firmware, images, kvm, odd_disks
from tests.lab.console import Console, Heartbeat, Stall
from tests.lab.daemon import connect
from tests.lab.domain_xml import AGENT_CHANNEL, Disk, domain_xml
from tests.lab.options import GuestOptions, Odd
from tests.lab.places import LabError, open_dir, run_dir

BOOT_TIMEOUT = 60.0
LOST_ANSWER = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 112)
"""libvirt's codes for an agent's answer that did not come: up to 11.1, and from 11.2 on (VIR_ERR_AGENT_COMMAND_TIMEOUT)."""
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LabGuest:
    """`start()` makes, defines and boots it; `destroy()` removes every trace, overlays that a test left included."""

    def __init__(self, options: GuestOptions | None = None, *, connection: Any = None) -> None:
        self.options = options or GuestOptions()
        self.folder = run_dir() / "guests" / self.options.name
        self.console = Console(self.folder / "serial.log")
        self.disks: dict[str, Path] = {}
        self._own_connection = connection is None
        self._connection: Any = connect() if connection is None else connection

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def connection(self) -> Any:
        """One of its own is made anew where the daemon was started anew."""
        if self._own_connection and not _answers(self._connection):
            self._connection = connect()
        return self._connection

    @property
    def domain(self) -> Any:
        return self.connection.lookupByName(self.name)

    @property
    def relay_socket(self) -> Path:
        """Connect here to be the agent of a guest with agent=relay."""
        return self.folder / "relay.sock"

    @property
    def nvram(self) -> Path:
        """Of a guest with nvram: the file with the variables of its firmware."""
        return self.folder / firmware.VARIABLES

    @property
    def tpm_state(self) -> Path:
        """Of a guest with a tpm: the folder with its state."""
        return firmware.tpm_state(self.domain.UUIDString())

    # Life

    def define(self) -> "LabGuest":
        """A persistent, shut-off domain with fresh disks."""
        self._remove_domain()
        open_dir(self.folder.parent)
        open_dir(self.folder)
        boot = images.build()
        made = self._make_disks()
        self.disks = {disk.target: disk.source for disk in made if disk.source is not None}
        if Odd.LUKS in self.options.odd_disks:
            self._define_secret()
        self.connection.defineXML(domain_xml(self.options, kvm.domain_type(boot), boot, made, self.folder))
        return self

    def start(self) -> "LabGuest":
        """Boots it; a guest that is not defined yet is defined first. Does not wait."""
        if not self.is_defined():
            self.define()
        self.domain.create()
        return self

    def start_and_wait(self) -> "LabGuest":
        """Booted, disks mounted, meters writing, agent answering. With a relay the caller is the agent, and calls `wait_agent`."""
        self.start()
        boots.wait_for_first_words(self.console, self.domain, self._start_again)
        self.wait_ready()
        if self.options.agent == "qga" and self.options.agent_channel:
            self.wait_agent()
        return self

    def attach(self) -> "LabGuest":
        """Takes over a guest that another process started."""
        inactive = ElementTree.fromstring(self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        self.disks = _sources(inactive)
        return self

    def destroy(self) -> None:
        """Switches off, undefines, and deletes all files of the domain's chains, wherever a test put them, but for sealed points."""
        self._remove_domain()
        if self._own_connection:
            self._connection.close()

    def power_off(self) -> None:
        """Pulls the plug; the definition and the disks stay."""
        if self.domain.isActive():
            self.domain.destroy()

    def shutdown(self, timeout: float = 60.0) -> None:
        """A clean shutdown through the agent: filesystems unmounted."""
        self.agent({"execute": "guest-shutdown"}, reply=False)
        self.wait_off(timeout)

    def _start_again(self) -> None:
        self.power_off()
        self.domain.create()

    def is_defined(self) -> bool:
        return any(domain.name() == self.name for domain in self.connection.listAllDomains())

    def wait_off(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while self.domain.isActive():
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} did not shut down within {timeout:.0f} s:\n{self.serial_text()[-1500:]}")
            time.sleep(0.05)

    def _make_disks(self) -> list[Disk]:
        letters = iter(string.ascii_lowercase)
        made = []
        for _ in range(self.options.disks):
            target = f"vd{next(letters)}"
            image = self.folder / f"{target}.qcow2"
            disks.data_disk(image, mb=self.options.disk_mb, label="data" if target == "vda" else f"data-{target}")
            made.append(Disk(target, image))
        ide_letters, scsi_letters = iter(string.ascii_lowercase), iter(string.ascii_lowercase)
        for odd in self.options.odd_disks:
            match odd:
                case Odd.CDROM | Odd.EMPTY_CDROM | Odd.IDE:
                    target = f"hd{next(ide_letters)}"
                case Odd.SCSI:
                    target = f"sd{next(scsi_letters)}"
                case _:
                    target = f"vd{next(letters)}"
            made.append(odd_disks.make(odd, target, self.folder, self.options.disk_mb))
        return made

    def _define_secret(self) -> None:
        secret = ElementTree.Element("secret", ephemeral="yes", private="no")
        ElementTree.SubElement(secret, "uuid").text = odd_disks.secret_of(self.folder)
        self.connection.secretDefineXML(ElementTree.tostring(secret, encoding="unicode")).setValue(odd_disks.PASSPHRASE.encode())

    def _remove_secret(self) -> None:
        with suppress(libvirt.libvirtError):
            self.connection.secretLookupByUUIDString(odd_disks.secret_of(self.folder)).undefine()

    def _remove_domain(self) -> None:
        files = set(self.folder.glob("*.qcow2"))
        if self.is_defined():
            domain = self.domain
            files |= self._chain_files(domain)
            if domain.isActive():
                # libvirtd may see only now that its QEMU was killed.
                with suppress(libvirt.libvirtError):
                    domain.destroy()
            if domain.isPersistent():
                domain.undefineFlags(_UNDEFINE)
        if Odd.LUKS in self.options.odd_disks:
            self._remove_secret()
        odd_disks.detach_loop_devices(self.folder)
        for file in files:
            # A file beside a manifest is of a sealed point, on which the disk of an instant restore still stood.
            if file.is_file() and not (file.parent / "manifest.json").exists():
                file.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chain_files(self, domain: Any) -> set[Path]:
        found: set[Path] = set()
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            for source in _sources(ElementTree.fromstring(domain.XMLDesc(flags))).values():
                found.update(disks.chain(source))
        return found

    # Disks

    def active_sources(self) -> dict[str, Path]:
        """What each disk is on now, by the live definition."""
        return _sources(ElementTree.fromstring(self.domain.XMLDesc(0)))

    # Agent

    def wait_agent(self, timeout: float = BOOT_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._wait_channel(deadline)
                self.agent({"execute": "guest-ping"}, timeout=2)
            except libvirt.libvirtError as error:
                if time.monotonic() > deadline:
                    message = f"the agent of {self.name} did not answer within {timeout:.0f} s ({error}); the console ended with:"
                    raise LabError(f"{message}\n{self.serial_text()[-1500:]}") from error
                time.sleep(0.05)
            else:
                return

    def agent_connected(self) -> bool:
        """Whether something in the guest has opened the agent's channel."""
        live = ElementTree.fromstring(self.domain.XMLDesc(0))
        targets = live.iterfind("devices/channel/target")
        return any(target.get("name") == AGENT_CHANNEL and target.get("state") == "connected" for target in targets)

    def _wait_channel(self, deadline: float) -> None:
        while not self.agent_connected() and time.monotonic() < deadline:
            time.sleep(0.03)

    def agent(self, command: dict[str, Any], *, timeout: int = 30, reply: bool = True) -> Any:
        """What the agent returned. An error of the agent is a libvirtError, as for every caller of libvirt."""
        try:
            text = libvirt_qemu.qemuAgentCommand(self.domain, json.dumps(command), timeout, 0)
        except libvirt.libvirtError:
            if reply:
                raise
            return None
        return json.loads(text)["return"]

    def exec(self, path: str, *arguments: str, timeout: float = 30.0) -> str:
        """Runs a program in the guest and returns what it printed; a failing one is a LabError."""
        asked = {"path": path, "arg": list(arguments), "capture-output": True}
        pid = self.agent({"execute": "guest-exec", "arguments": asked})["pid"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.agent({"execute": "guest-exec-status", "arguments": {"pid": pid}})
            if status["exited"]:
                return _output(path, status)
            time.sleep(0.02)
        raise LabError(f"{path} did not end in the guest within {timeout:.0f} s")

    def freeze_status(self) -> str:
        return str(self.agent({"execute": "guest-fsfreeze-status"}))

    def thaw_for_sure(self) -> None:
        """For the end of a test, whatever happened in it."""
        for attempt in count():
            try:
                self.agent({"execute": "guest-fsfreeze-thaw"}, timeout=5)
                return
            except libvirt.libvirtError:
                if attempt == 3:
                    raise

    # Console

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        try:
            self.console.wait("^LAB ready", timeout)
        except LabError as error:
            raise boots.with_facts(error, self.domain) from error
        if self.options.meter is not None and self.options.disks:
            self.console.wait("^METER ", timeout)

    def serial_text(self) -> str:
        return self.console.text()

    def wait_serial(self, pattern: str, timeout: float, *, since: int = 0) -> str:
        return self.console.wait(pattern, timeout, since=since).group()

    def mark(self) -> int:
        """A place on the console, for `stalls(since=...)`."""
        return self.console.mark()

    def stalls(self, since: int | None = None) -> list[Stall]:
        """The late writes and fdatasyncs after the mark, once every meter has spoken again."""
        self.console.wait_heartbeat(60)
        return self.console.stalls(since or 0)

    def heartbeats(self, since: int | None = None) -> list[Heartbeat]:
        return self.console.heartbeats(since or 0)


def remove_stale_guests(prefix: str) -> None:
    """Guests of test runs that were killed: their names end in the process id of the run. Called before this process makes a guest.

    A guest with the id of this process is of a killed run, too. In a namespace of its own every run has the same id: a guest that stayed
    would be started in place of the one that a test asks for.
    """
    connection = connect()
    for domain in connection.listAllDomains():
        name = domain.name()
        pid = name.rpartition("-")[2]
        if name.startswith(prefix) and pid.isdigit() and not _is_another_run(int(pid)):
            LabGuest(GuestOptions(name=name), connection=connection).destroy()
    connection.close()


def _is_another_run(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sources(domain: ElementTree.Element) -> dict[str, Path]:
    found = {}
    for disk in domain.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None:
            place = source.get("file") or source.get("dev")
            if place:
                found[target.get("dev", "")] = Path(place)
    return found


def _output(path: str, status: dict[str, Any]) -> str:
    text = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
    if status.get("exitcode") != 0:
        error = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
        raise LabError(f"{path} ended in the guest with {status.get('exitcode', status.get('signal'))}: {error}")
    return text


def _answers(connection: Any) -> bool:
    # isAlive() says so only after a call has failed.
    try:
        connection.getVersion()
    except libvirt.libvirtError:
        return False
    return True
