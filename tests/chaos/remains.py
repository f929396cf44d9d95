"""What a chaos run leaves on the host when it is killed, and its end at the start of the next run."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.lab.command import run
from tests.lab.guests import remove_stale_guests
from tests.lab.namespaces import libvirt_pids, ways_into
from tests.lab.places import LabError, run_dir

GUESTS = "lab-chaos-"
_FOLDERS = "stillpoint-chaos-"
_PID = "pid"
_STATE_DIR = b"STILLPOINT_STATE_DIR="


def new_folder() -> Path:
    """Of a run that begins. As long as it has the number of a process that is no more, the run was killed."""
    folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
    (folder / _PID).write_text(str(os.getpid()))
    return folder


def has_ended(folder: Path) -> None:
    """What is in the folder now is for a person: the next run leaves it alone."""
    (folder / _PID).unlink(missing_ok=True)


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"))


def is_of(folder: Path, pid: int) -> bool:
    try:
        return (folder / _PID).read_text() == str(pid)
    except OSError:
        return False


def clear_up() -> list[Path]:
    """Ends the processes, disks and guests of runs that were killed. Answers their folders, which are gone afterwards."""
    killed = [folder for folder in folders() if _was_killed(folder)]
    for folder in killed:
        _end_processes(folder)
    # A disk that hangs would hold up the end of the guest that is on it.
    disks = [mount for folder in killed for mount in _mounts_of(folder)]
    for mount in disks:
        with suppress(LabError):
            run(["fsfreeze", "--unfreeze", mount])
    with ways_into(libvirt_pids()) as ways:
        for way in [[], *ways]:
            for mount in disks:
                with suppress(LabError):
                    run([*way, "umount", "--lazy", mount])
    remove_stale_guests(GUESTS)
    for folder in killed:
        shutil.rmtree(folder, ignore_errors=True)
    return killed


def _was_killed(folder: Path) -> bool:
    try:
        pid = int((folder / _PID).read_text())
    except (OSError, ValueError):
        return False
    try:
        return b"tests.chaos" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _end_processes(folder: Path) -> None:
    """API, worker, keeper and guards: all of them have the state folder of their lane in their environment."""
    mark = _STATE_DIR + os.fsencode(folder) + b"/"
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def _mounts_of(folder: Path) -> Iterator[Path]:
    """The small disks of its lanes, and the disks of their overlays, which lie in the folders of the guests."""
    images = {str(image) for image in folder.rglob("*.img")}
    places = (folder, run_dir() / "guests")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, mount = line.split()[:2]
        backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
        with suppress(OSError):
            if any(Path(mount).is_relative_to(place) for place in places) and backing.read_text().strip() in images:
                yield Path(mount)
