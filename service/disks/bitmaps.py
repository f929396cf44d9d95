"""Removes a bitmap from the disk of a domain that is off, where libvirt removes none."""

import json
import subprocess
from pathlib import Path

from service import bounded_io
from service.disks.overlay_file import QEMU_IMG
from service.errors import StillpointError

BUDGET_S = 30.0
"""Seconds for one program. After that the bitmap stays."""


def remove(path: str, name: str) -> str | None:
    """Why the bitmap stays, or None: the file has no such bitmap any more. A file that a QEMU has open is locked, and is left alone."""
    try:
        info = _run(path, "info", "--output=json", "-f", "qcow2", path)
        if info.returncode:
            return _last_line(info)
        there = json.loads(info.stdout).get("format-specific", {}).get("data", {}).get("bitmaps", [])
        if name not in [bitmap["name"] for bitmap in there]:
            return None
        removed = _run(path, "bitmap", "--remove", "-f", "qcow2", path, name)
    except (StillpointError, subprocess.TimeoutExpired, ValueError) as error:
        return str(error)
    return _last_line(removed) if removed.returncode else None


def _run(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([QEMU_IMG, *arguments], check=False, capture_output=True, text=True, errors="replace", timeout=BUDGET_S)

    return bounded_io.translated_call(f"qemu-img {arguments[0]}", Path(path), run, BUDGET_S + 5)


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return ended.stderr.strip().rpartition("\n")[2] or f"qemu-img exited with {ended.returncode}"
