"""Where the lab keeps its files, and the one error it raises."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAB_DIR = Path(__file__).resolve().parents[2] / "build" / "lab"
_LONGEST_RUN_DIR = 50  # leaves room for guests/NAME/relay.sock


class LabError(Exception):
    """The lab cannot do what was asked; the text says why and what to do."""


def lab_dir() -> Path:
    LAB_DIR.mkdir(parents=True, exist_ok=True)
    return LAB_DIR


def run_dir() -> Path:
    """Files that QEMU opens: in the clone, unless QEMU cannot reach them there.

    Under a root libvirtd it runs as another user, who cannot enter a closed home; and the path of a socket has at most 107 characters.
    """
    directory = lab_dir() / "run"
    closed = os.geteuid() == 0 and not _reachable_by_others(lab_dir())
    if closed or len(os.fsencode(directory)) > _LONGEST_RUN_DIR:
        clone = hashlib.sha256(os.fsencode(LAB_DIR)).hexdigest()[:8]
        directory = Path(f"/var/tmp/stillpoint-lab-{os.geteuid()}-{clone}")
    return open_dir(directory)


def user_dir() -> Path:
    """What all clones of this user share: who uses the libvirt daemon, and whether the lab started it."""
    return open_dir(Path(f"/var/tmp/stillpoint-lab-{os.geteuid()}"))


def open_dir(directory: Path) -> Path:
    """A directory that others may enter, whatever the umask is."""
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise LabError(f"{directory} belongs to another user; remove it")
    directory.chmod(0o755)
    return directory


def _reachable_by_others(directory: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in [directory, *directory.parents])


@contextmanager
def locked(name: str, directory: Path | None = None) -> Iterator[None]:
    """One process at a time; several test runs may share a clone."""
    with ((directory or lab_dir()) / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
