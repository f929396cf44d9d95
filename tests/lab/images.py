"""Builds what the guest boots from: Debian's kernel and an initramfs with Debian's own agent."""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab import disks
from tests.lab.command import run
from tests.lab.kernel_modules import SCSI, ordered_modules
from tests.lab.packages import unpacked
from tests.lab.places import LabError, lab_dir, locked, run_dir

_HERE = Path(__file__).parent
_SOURCES = ("images.py", "kernel_modules.py", "init.sh", "shutdown.sh", "stallmeter.c")
_AGENT = "usr/sbin/qemu-ga"
_OS_RELEASE = 'NAME="Stillpoint lab"\nID=stillpoint-lab\nVERSION_ID=1\nPRETTY_NAME="Stillpoint lab guest"\n'


@dataclass(frozen=True)
class BootFiles:
    kernel: Path
    initramfs: Path


def build() -> BootFiles:
    """The boot files, built when they are missing or when what they are made of has changed."""
    with locked("images"):
        packages = unpacked()
        stamp = _stamp(packages)
        files = BootFiles(run_dir() / "vmlinuz", run_dir() / "initramfs.cpio")
        stamp_file = run_dir() / "images.stamp"
        if not stamp_file.exists() or stamp_file.read_text() != stamp:
            stamp_file.unlink(missing_ok=True)
            _build_kernel(packages, files.kernel)
            _build_initramfs(packages, files.initramfs)
            stamp_file.write_text(stamp)
        return files


def _stamp(packages: Path) -> str:
    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update((_HERE / source).read_bytes())
    for package in sorted(packages.glob("*.deb")):
        digest.update(package.name.encode())
    return digest.hexdigest()


def _build_kernel(packages: Path, target: Path) -> None:
    kernels = sorted(packages.glob("boot/vmlinuz-*"))
    if not kernels:
        raise LabError(f"no kernel in {packages}; remove the folder and build again")
    _replace(target, kernels[-1].read_bytes())


def _replace(target: Path, content: bytes) -> None:
    """A new file in place of the old: a running guest keeps the one it has."""
    fresh = target.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o644)
    fresh.replace(target)


def _build_initramfs(packages: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=lab_dir()) as scratch:
        root = Path(scratch)
        _add_folders(root)
        _add_busybox(packages, root)
        _add_agent(packages, root)
        _add_modules(packages, root)
        _add_scripts(root)
        _add_stallmeter(root)
        _add_loop_image(root)
        _replace(target, _archive(root))


def _add_folders(root: Path) -> None:
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "var/log", "modules", "etc", "bin", "sbin", "usr/bin", "usr/sbin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/run").symlink_to("/run")
    (root / "etc/mtab").symlink_to("/proc/self/mounts")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/os-release").write_text(_OS_RELEASE)
    (root / "etc/acpi/PWRF").mkdir(parents=True)
    (root / "etc/acpi/PWRF/00000080").symlink_to("/sbin/shutdown")  # where busybox's acpid looks for the power button


def _add_busybox(packages: Path, root: Path) -> None:
    program = next(path for path in (packages / "bin/busybox", packages / "usr/bin/busybox") if path.exists())
    _copy(program, root / "bin/busybox")
    for applet in run([program, "--list-full"]).split():
        link = root / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to("/bin/busybox")
        # guest-exec callers name /bin/sync or /usr/bin/sync; both are there on a merged /usr.
        other = root / ("usr/" + applet).replace("usr/usr/", "")
        if not other.is_symlink() and not other.exists():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.symlink_to("/bin/busybox")


def _add_agent(packages: Path, root: Path) -> None:
    """qemu-ga with the libraries that the unpacked packages' own loader finds for it, so the host's libc does not matter."""
    _copy(packages / _AGENT, root / _AGENT)
    shutil.copytree(packages / "etc/qemu", root / "etc/qemu")
    (root / "etc/qemu/fsfreeze-hook.d").mkdir(exist_ok=True)
    loader = next(packages.glob("**/ld-linux-x86-64.so.2")).resolve()
    folders = [packages / "usr/lib/x86_64-linux-gnu", packages / "lib/x86_64-linux-gnu"]
    listing = run([loader, "--library-path", ":".join(map(str, folders)), "--list", packages / _AGENT])
    for line in listing.splitlines():
        name, found, rest = line.strip().partition(" => ")
        library = rest.rpartition(" (")[0]
        if found and Path(library).is_relative_to(packages):
            _copy(Path(library), root / "lib/x86_64-linux-gnu" / Path(name).name)
        elif found and "ld-linux" not in name:
            raise LabError(f"qemu-ga needs {name}, which none of its packages has")
    _copy(loader, root / "lib64/ld-linux-x86-64.so.2")


def _add_modules(packages: Path, root: Path) -> None:
    for order, modules in (("order", ordered_modules(packages)), ("order.scsi", ordered_modules(packages, SCSI))):
        for name, content in modules.items():
            (root / f"modules/{name}.ko").write_bytes(content)
        (root / f"modules/{order}").write_text("".join(f"{name}.ko\n" for name in modules))


def _add_scripts(root: Path) -> None:
    for source, target in (("init.sh", "init"), ("shutdown.sh", "sbin/shutdown")):
        (root / target).unlink(missing_ok=True)
        _copy(_HERE / source, root / target)
        (root / target).chmod(0o755)


def _add_stallmeter(root: Path) -> None:
    run(["gcc", "-static", "-O2", "-Wall", "-o", root / "usr/bin/stallmeter", _HERE / "stallmeter.c"])


def _add_loop_image(root: Path) -> None:
    image = root / "loop.img"
    disks.make_ext4(image, mb=8, label="loop")
    (root / "loop.img.gz").write_bytes(gzip.compress(image.read_bytes(), mtime=0))
    image.unlink()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _archive(root: Path) -> bytes:
    """Uncompressed, as emulated decompression costs more than loading."""
    names = "".join(f"./{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"]
    return subprocess.run(command, cwd=root, input=names.encode(), capture_output=True, check=True).stdout
