"""Which boot of the machine this is: what the kernel numbers, such as devices, it numbers anew in the next one."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Of the running kernel; empty where it does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
