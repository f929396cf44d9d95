"""What a backup did to its guest: the latency of its disks before, in the window, during the copy and after. Pure rules, no I/O."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockTimes:
    """Counters of one disk since the domain was started. None: this libvirt or this QEMU has no such counter."""

    writes: int | None = None
    write_ns_total: int | None = None
    flushes: int | None = None
    flush_ns_total: int | None = None
    reads: int | None = None
    read_ns_total: int | None = None
    errors: int | None = None
