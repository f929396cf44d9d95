"""Whether KVM really works here. /dev/kvm may open, create a machine and then hang, so only a booting kernel counts."""

import grp
import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

from tests.lab.images import BootFiles
from tests.lab.places import lab_dir, locked

_DEVICE = Path("/dev/kvm")
_TIMEOUT = 10.0
_SIGN_OF_LIFE = b"Linux version"


def domain_type(boot: BootFiles) -> str:
    return "kvm" if usable(boot) else "qemu"


def usable(boot: BootFiles) -> bool:
    """Measured once per boot of this machine and kernel of the lab."""
    if not _open_to_qemu():
        return False
    with locked("kvm"):
        answer = lab_dir() / "kvm.json"
        this_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        key = f"{this_boot} {hashlib.sha256(boot.kernel.read_bytes()).hexdigest()}"
        if answer.exists() and (known := json.loads(answer.read_text()))["key"] == key:
            return bool(known["works"])
        works = probe(boot)
        answer.write_text(json.dumps({"key": key, "works": works}))
        return works


def probe(boot: BootFiles, timeout: float = _TIMEOUT) -> bool:
    """Runs the lab's kernel under KVM until it prints something or the time is over."""
    machine = ["-machine", "pc,accel=kvm", "-m", "128", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    kernel = ["-kernel", str(boot.kernel), "-append", "console=ttyS0 panic=-1"]
    command = ["timeout", "--signal=KILL", str(timeout), "qemu-system-x86_64", *machine, *kernel]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return _SIGN_OF_LIFE in done.stdout


def _open_to_qemu() -> bool:
    """A root libvirtd runs QEMU as a user of its own, to whom the device is open only by its group or to all."""
    if os.geteuid() != 0:
        return os.access(_DEVICE, os.R_OK | os.W_OK)
    try:
        device = _DEVICE.stat()
        group = grp.getgrgid(device.st_gid).gr_name
    except (FileNotFoundError, KeyError):
        return False
    by_group = bool(device.st_mode & stat.S_IWGRP) and group == "kvm"
    return by_group or bool(device.st_mode & stat.S_IWOTH)
