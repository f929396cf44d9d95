"""The floor: a QEMU of its own, its agent and its monitor spoken to directly. No daemon is in between, so nothing can be much shorter."""

import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import disks, images, kvm
from tests.lab.console import Console
from tests.lab.domain_xml import AGENT_CHANNEL
from tests.lab.options import GuestOptions
from tests.lab.overlays import make_overlay
from tests.lab.places import LabError, open_dir, run_dir

TIMEOUT_S = 30.0
BASE_NODE = "base-format"
_SYNC_BYTE = b"\xff"


class JsonLines:
    """A unix socket on which each side says one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))
        self._rest = b""

    def send(self, message: Mapping[str, Any], prefix: bytes = b"") -> None:
        self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            received = self._socket.recv(65536)
            if not received:
                raise LabError("QEMU closed the connection")
            self._rest += received
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line.lstrip(_SYNC_BYTE))
        return answer

    def close(self) -> None:
        self._socket.close()


class Monitor:
    """QMP."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._events: list[dict[str, Any]] = []
        self._lines.receive()  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        self._lines.send({"execute": command, "arguments": arguments or {}})
        while True:
            message = self._lines.receive()
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise LabError(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def forget_events(self) -> None:
        self._events.clear()

    def wait_event(self, name: str) -> dict[str, Any]:
        """The first of this name since `forget_events`; everything before it is forgotten with it."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if event["event"] == name:
                    return event
            self._events.append(self._lines.receive())

    def close(self) -> None:
        self._lines.close()


class Agent:
    """The guest agent, without libvirt."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        number = secrets.randbelow(2**31)
        self._lines.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, _SYNC_BYTE)
        while self._lines.receive().get("return") != number:
            pass

    def __call__(self, command: str) -> Any:
        self._lines.send({"execute": command})
        answer = self._lines.receive()
        if "error" in answer:
            raise LabError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def close(self) -> None:
        self._lines.close()


class FloorGuest:
    """The same guest as the lab's, with the options that libvirt gives its QEMU."""

    def __init__(self, options: GuestOptions) -> None:
        self.folder = open_dir(open_dir(run_dir() / "guests") / options.name)
        self.console = Console(self.folder / "serial.log")
        self._options = options
        self._disk = self.folder / "vda.qcow2"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        disks.data_disk(self._disk, mb=self._options.disk_mb, label="data")
        boot = images.build()
        self._process = subprocess.Popen(self._command(boot, kvm.domain_type(boot)), stdin=subprocess.DEVNULL)
        self._wait_for(self.folder / "qmp.sock")
        self.console.wait("^LAB ready", TIMEOUT_S)
        self.console.wait("^METER ", TIMEOUT_S)
        self.monitor = Monitor(self.folder / "qmp.sock")
        self.agent = Agent(self.folder / "qga.sock")

    def destroy(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_overlay(self) -> Path:
        """An empty overlay that QEMU has open and nobody writes to yet."""
        overlay = make_overlay(self._disk, "floor")
        self.monitor("blockdev-add", {"driver": "file", "filename": str(overlay), "node-name": "overlay-storage"})
        self.monitor("blockdev-add", {"driver": "qcow2", "file": "overlay-storage", "node-name": "overlay-format", "backing": None})
        return overlay

    def move_to_overlay(self) -> None:
        """The point in time."""
        switch = {"type": "blockdev-snapshot", "data": {"node": BASE_NODE, "overlay": "overlay-format"}}
        self.monitor("transaction", {"actions": [switch]})

    def merge_back(self, overlay: Path) -> None:
        """The disk is as it was before `add_overlay`."""
        self.monitor.forget_events()
        self.monitor("block-commit", {"device": "overlay-format", "job-id": "merge"})
        self.monitor.wait_event("BLOCK_JOB_READY")
        self.monitor("job-complete", {"id": "merge"})
        self.monitor.wait_event("BLOCK_JOB_COMPLETED")
        self.monitor("blockdev-del", {"node-name": "overlay-format"})
        self.monitor("blockdev-del", {"node-name": "overlay-storage"})
        overlay.unlink()

    def _command(self, boot: images.BootFiles, accelerator: str) -> list[str]:
        memory = self._options.memory_mb * 2**20
        words = f"""
            qemu-system-x86_64 -machine pc,usb=off,dump-guest-core=off,memory-backend=pc.ram
            -accel {"kvm" if accelerator == "kvm" else "tcg"} -cpu {"host" if accelerator == "kvm" else "qemu64"}
            -m {self._options.memory_mb} -object memory-backend-ram,id=pc.ram,size={memory} -overcommit mem-lock=off
            -smp 1,sockets=1,cores=1,threads=1 -display none -no-user-config -nodefaults
            -chardev socket,id=charmonitor,path={self.folder}/qmp.sock,server=on,wait=off
            -mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc -no-shutdown -boot strict=on
            -device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x2
            -blockdev driver=file,filename={self._disk},node-name=base-storage,auto-read-only=on,discard=unmap
            -blockdev node-name={BASE_NODE},read-only=off,driver=qcow2,file=base-storage
            -device virtio-blk-pci,bus=pci.0,addr=0x3,drive={BASE_NODE},id=virtio-disk0,bootindex=1,serial=floor-vda
            -chardev file,id=charserial0,path={self.folder}/serial.log,append=on
            -device isa-serial,chardev=charserial0,id=serial0,index=0
            -chardev socket,id=charchannel0,path={self.folder}/qga.sock,server=on,wait=off
            -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name={AGENT_CHANNEL}
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        """.split()
        return [*words, "-kernel", str(boot.kernel), "-initrd", str(boot.initramfs), "-append", self._options.kernel_command_line()]

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError("the floor's QEMU did not start")
            time.sleep(0.02)
