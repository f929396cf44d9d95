"""Mount namespaces of other processes: where libvirtd or QEMU has one of its own, a disk must be mounted there as well."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.lab.command import run
from tests.lab.places import LabError


def libvirt_pids() -> list[str]:
    """Also those that libvirtd has forked for a moment: they bear its name."""
    with suppress(LabError):
        return run(["pidof", "libvirtd", "virtqemud"]).split()
    return []


@contextmanager
def ways_into(pids: Iterable[str]) -> Iterator[list[list[str]]]:
    """What to put before a command that is to run in each mount namespace of the processes which is not this process's own.

    Only namespaces with this process's root count: a libvirtd in another root (`scripts/debian13`) has other files under the same names.
    The namespaces are held open until the end of the block: the process by which one was found may end meanwhile.
    """
    with ExitStack() as stack:
        found: dict[int, list[str]] = {}
        for pid in pids:
            with suppress(OSError):
                if not Path(f"/proc/{pid}/root").samefile("/"):
                    continue
                handle = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
                stack.callback(os.close, handle)
                found[os.fstat(handle).st_ino] = ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{handle}"]
        found.pop(Path("/proc/self/ns/mnt").stat().st_ino, None)
        yield list(found.values())
