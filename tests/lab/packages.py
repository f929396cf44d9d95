"""The Debian packages that the guest is made of, downloaded and unpacked without root."""

import platform
import re
import shutil
from pathlib import Path

from tests.lab.command import run
from tests.lab.places import LabError, lab_dir

_KERNEL_META = "linux-image-cloud-amd64"
_PROGRAMS = ("busybox-static", "qemu-guest-agent")


def unpacked() -> Path:
    """The root of the unpacked packages. They are fetched once per release; `rm -rf build/lab` fetches newer ones."""
    if platform.machine() != "x86_64":
        raise LabError(f"the lab guest is built for x86_64 only, this machine is {platform.machine()}")
    release = platform.freedesktop_os_release()
    root = lab_dir() / "debs" / f"{release['ID']}-{release.get('VERSION_ID', 'rolling')}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        _fetch(root)
        (root / "complete").touch()
    return root


def _fetch(root: Path) -> None:
    root.mkdir(parents=True)
    apt = _Apt()
    try:
        names = _package_names(apt)
    except LabError:
        # No package lists on this machine: make some of our own, which needs no root and changes nothing on the host.
        apt = _Apt(private=True)
        names = _package_names(apt)
    try:
        run(apt.get("download", *names), cwd=root)
    except LabError:  # the lists are older than the archive
        run(_Apt(private=True).get("download", *names), cwd=root)
    for package in root.glob("*.deb"):
        run(["dpkg-deb", "-x", package, root])


class _Apt:
    """apt-get with the host's package lists, or with fresh ones in the lab's folder."""

    def __init__(self, *, private: bool = False) -> None:
        self._options: list[str] = []
        if private:
            state = lab_dir() / "apt"
            (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            self._options = ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state}"]
            run(self.get("update"))

    def get(self, *words: str) -> list[str]:
        return ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *self._options, *words]

    def depends(self, package: str) -> list[str]:
        options = ["--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"]
        text = run(["apt-cache", *self._options, *options, "depends", package])
        return re.findall(r"^\s+(?:PreDepends|Depends): (\S+)$", text, re.MULTILINE)


def _package_names(apt: _Apt) -> list[str]:
    kernels = [name for name in apt.depends(_KERNEL_META) if name.startswith("linux-image-")]
    if not kernels:
        raise LabError(f"{_KERNEL_META} names no kernel package; the lab needs the archive of Debian 12 or newer")
    names = list(_PROGRAMS)
    for name in names:  # grows while it is walked: the shared libraries of the agent, and theirs
        names += [found for found in apt.depends(name) if found not in names and found.startswith("lib")]
    return [kernels[0], *names]
