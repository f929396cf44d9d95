"""How a lab guest shall be."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

Hook = Literal["ok", "fail", "fail_thaw", "swallow", "hang", "hang_thaw"]


class Odd(StrEnum):
    """Disks that cannot simply take part in a snapshot."""

    CDROM = "cdrom"
    EMPTY_CDROM = "empty_cdrom"
    READONLY = "readonly"
    RAW_FILE = "raw_file"
    EMPTY = "empty"  # nobody ever wrote to it
    BLOCK_DEVICE = "block_device"  # a loop device of the host; needs root
    SHAREABLE = "shareable"
    TRANSIENT = "transient"
    SNAPSHOT_NO = "snapshot_no"
    COPY_ON_READ = "copy_on_read"
    SCSI = "scsi"  # at a virtio-scsi controller
    IDE = "ide"
    LUKS = "luks"  # a qcow2 with LUKS inside; its secret is in libvirt


_SLOW_INITCALLS = ("crypto_kdf108_init", "init_kprobe_trace", "trace_eval_init", "load_system_certificate_list", "init_encrypted")
QUICK = ("cryptomgr.notests", f"initcall_blacklist={','.join(_SLOW_INITCALLS)}")
"""Leaves out what an emulated machine takes half a second to compute at each boot, and what no guest of the lab needs."""


@dataclass(frozen=True)
class GuestOptions:
    """`disks` are qcow2 with ext4, mounted at /data, /data-vdb, ...; `odd_disks` come after them."""

    name: str = "lab-linux"
    disks: int = 1
    disk_mb: int = 128
    memory_mb: int = 256
    odd_disks: tuple[Odd, ...] = ()
    serials: bool = True
    iotune_bytes_sec: int | None = None
    agent: Literal["qga", "relay", "none"] = "qga"
    agent_channel: bool = True
    agent_args: tuple[str, ...] = ()
    hook: Hook | None = None
    loop_mount: bool = False
    meter: dict[str, int] | None = field(default_factory=dict)  # size_mb, interval_us, sync_every, threshold_ms; None is off
    cmdline: str = ""
    tpm: bool = False  # swtpm, whose state is files of the host
    nvram: bool = False  # variables of the firmware in a file beside the disks; what firmware it is does not matter

    def named(self, name: str) -> "GuestOptions":
        return replace(self, name=name)

    def kernel_command_line(self) -> str:
        """The switches that tests/lab/init.sh reads; `+` stands for a space inside a value."""
        # no_timer_check: on a busy host the timer of an emulated machine seems to stand still, and Linux panics. KVM's never checks.
        words = ["console=ttyS0", "quiet", "panic=-1", "no_timer_check", *QUICK, f"name={self.name}", f"agent={self.agent}"]
        if {Odd.SCSI, Odd.IDE} & set(self.odd_disks):
            words.append("scsi=1")
        if self.agent_args:
            words.append("agent_args=" + "+".join(self.agent_args))
        if self.hook:
            words.append(f"hook={self.hook}")
        if self.loop_mount:
            words.append("loop=1")
        if self.meter is None:
            words.append("meter=off")
        elif self.meter:
            words.append("meter=" + "+".join(f"{key}={value}" for key, value in self.meter.items()))
        return " ".join([*words, *self.cmdline.split()])
