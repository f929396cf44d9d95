"""Runs host programs; a failing one becomes a LabError with its own words."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.places import LabError

# mkfs.ext4, dumpe2fs, debugfs and libvirtd are not on the PATH of ordinary users.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise LabError(f"{name} is not installed; run scripts/install-host-packages")
    return found


def run(command: Sequence[str | Path], *, cwd: Path | None = None, timeout: float = 300) -> str:
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as missing:
        raise LabError(f"{words[0]} is not installed; run scripts/install-host-packages") from missing
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(words)} took longer than {timeout:.0f} s") from late
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
