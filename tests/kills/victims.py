"""The processes of a worker that can be killed: itself, those that touch repositories and copies, and the programs of QEMU below those."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WORKER, TRANSFER, QEMU, ALL = "worker", "transfer", "qemu", "all"
VICTIMS = (WORKER, TRANSFER, QEMU, ALL)
_TRANSFERS = (b"service.repository.hand_process", b"service.copies.courier_process")


def transfers(worker: int) -> list[int]:
    """The processes that the worker has started for repositories and copies."""
    return [child for child in _children(worker) if any(name in _command_line(child) for name in _TRANSFERS)]


def programs_of_qemu(worker: int) -> list[int]:
    """Those that read and write images for the processes above."""
    return [each for hand in transfers(worker) for each in _all_below(hand) if os.path.basename(_program(each)).startswith("qemu")]  # noqa: PTH119 - of /proc


def kill(victim: str, worker: int) -> int:
    """How many processes got a SIGKILL. The worker is its parent's business (`WORKER`, `ALL`) and comes first."""
    pids = {
        WORKER: lambda: [worker],
        TRANSFER: lambda: transfers(worker),
        QEMU: lambda: programs_of_qemu(worker),
        ALL: lambda: _all(worker),
    }
    killed = 0
    for pid in pids[victim]():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def _all(worker: int) -> list[int]:
    """As when the machine loses its power, but for what the kernel still has in memory."""
    hands = transfers(worker)
    return [worker, *hands, *(each for hand in hands for each in _all_below(hand))]


def _all_below(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _all_below(child)


def _children(pid: int) -> list[int]:
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found |= set(map(int, (thread / "children").read_text().split()))
    return sorted(found)


def _program(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
