"""Identifies the boot of the machine, because the kernel numbers devices and other things differently in each boot."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The id of the running kernel's boot. Empty: the kernel has no such id."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
