"""Lets QEMU read the images of a point during an instant restore, and takes that right back when the disks stand alone.

The folders of a repository are closed to all but the service's user. libvirt would make QEMU's user the owner of the images, and so write
to what is sealed. So the images get an access list instead, and the definition tells libvirt not to label them.
"""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from service.errors import ForeignEntry, OutOfReachOfQemu, StillpointError, StorageRefused, TargetFull
from service.repository import access_list, stored_chain
from service.repository.access_list import PASS, READ
from service.repository.failures import free_bytes, of_target
from service.repository.images import ALONE, DIES_WITH_US, Image, QemuImgFailed, last_line, qemu_img, qemu_img_watched
from service.repository.report import Report
from service.repository.stamps import stamp_of
from service.repository.verifying import Faults, point_chain, stored_manifest

TRIAL_S = 20.0
"""Seconds for the program that tries to open the images as QEMU's user. After that the repository counts as out of reach."""
OVERLAY_BYTES = 1 << 20
"""Bytes that an overlay needs before a guest has written anything. Where less is free, the folder is full."""
LOOK_S = 0.1
"""Seconds between two looks at a program that runs."""
#: Prints the first path that cannot be opened. It runs as QEMU's user, so it cannot be a function of this process.
_TRIAL = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        print(error.errno, path, sep="\\n")
        break
"""


def open_to_qemu(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. `images`: [folder, file] of each disk that is restored. Returns the images of each chain, the upper one first.

    Raises OutOfReachOfQemu, after it took back every right that it gave.
    """
    root, uid = arguments["path"], arguments["uid"]
    chains = [[str(layer.path) for layer in stored_chain.chain(root, folder, file)] for folder, file in arguments["images"]]
    layers = sorted({layer for chain in chains for layer in chain})
    if uid == os.geteuid():
        return {"chains": chains}
    before = _stamps(root, layers)
    try:
        if _obstacle(layers, arguments) is not None:
            _grant(root, layers, uid, report)
            refused = _obstacle(layers, arguments)
            if refused is not None:
                raise OutOfReachOfQemu(path=refused[1], reason=f"user {uid}, as whom QEMU runs, cannot read it: {os.strerror(refused[0])}")
    except OutOfReachOfQemu:
        _revoke(root, layers, uid)
        raise
    return {"chains": chains, "changed": _changed(before, _stamps(root, layers))}


def look_at_files(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Whether every file of the point and of those below has its sealed size, and by folder the stamps of these points.

    Nothing is read but the manifests, so this takes the same time for every size of a disk. Raises PointDamaged, PointIncomplete, ...
    """
    root = arguments["path"]
    faults, seen = Faults(), dict[str, str]()
    for point in point_chain(root, arguments["folder"], faults):
        for file in point.manifest.files:
            status = stored_chain.regular_file(root, point.folder, file.name).stat()
            if status.st_size != file.bytes:
                faults.add(point.folder, file.name, f"it has {status.st_size} bytes, and {file.bytes} bytes were sealed")
        seen[point.folder] = stamp_of(root, point.folder, point.manifest)
        report.alive()
    return {"faults": faults.faults, "stamps": seen}


def close_to_qemu(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Takes the rights back from all images below `path` that `images` names; a right that was not given does no harm."""
    root, uid = arguments["path"], arguments["uid"]
    layers = [str(layer.path) for folder, file in arguments["images"] for layer in stored_chain.chain(root, folder, file)]
    report.alive()
    before = _stamps(root, layers)
    _revoke(root, layers, uid)
    return {"changed": _changed(before, _stamps(root, layers))}


def _stamps(root: str, layers: Sequence[str]) -> dict[str, str]:
    """By the folder of each point whose rights are changed. A point that cannot be read has no stamp: then it is read before it is used."""
    stamps = {}
    for folder in sorted({str(PurePath(layer).parent.relative_to(root)) for layer in layers}):
        with suppress(StillpointError):
            stamps[folder] = stamp_of(root, folder, stored_manifest(root, folder, of_point=folder))
    return stamps


def _changed(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str]]:
    return {folder: [stamp, after[folder]] for folder, stamp in before.items() if after.get(folder, stamp) != stamp}


def make_overlay(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. A new qcow2 at `target`, which reads from the image in the repository. Nothing is ever written to that image.

    Raises TargetFull, StorageRefused (also if the target is there already). A partial target is removed.
    """
    target, size = Path(arguments["target"]), arguments["virtual_size"]
    image = stored_chain.regular_file(arguments["path"], arguments["folder"], arguments["file"])
    report.alive()
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise of_target(error, target, "making") from error
    try:
        qemu_img("create", ["-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", str(image), str(target.absolute()), str(size)])
    except QemuImgFailed as error:
        target.unlink(missing_ok=True)
        free = free_bytes(target.parent)
        if free is not None and free < OVERLAY_BYTES:
            raise TargetFull(folder=str(target.parent), needed_bytes=OVERLAY_BYTES, free_bytes=free) from error
        raise StorageRefused(what="making", path=str(target), reason=error.reason, errno=None) from error
    return {}


def make_whole(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Copies what an overlay of a domain that is off still reads from the repository into the overlay.

    A kill in the middle leaves an overlay that still stands on the repository. Raises StorageRefused if another program has the overlay.
    """
    target = str(arguments["target"])
    command = [*DIES_WITH_US, "qemu-img", "rebase", "-f", "qcow2", "-b", "", target]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")
    counted = b""
    while process.poll() is None:
        # A program that waits for a storage that hangs reads and writes nothing: then this process is silent, too.
        now = _bytes_moved(process.pid)
        if now != counted:
            report.alive()
        counted = now
        time.sleep(LOOK_S)
    _, complaint = process.communicate()
    if process.returncode:
        reason = last_line(complaint.decode(errors="replace")) or f"qemu-img ended with {process.returncode}"
        raise StorageRefused(what="making whole", path=target, reason=reason, errno=None)
    return {}


def stand_on_again(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. The overlay `target` of a domain that is off stands on the image in the repository again, and lacks no refcounts.

    A cluster that the overlay has not is read from the repository again. A cluster that the guest wrote and flushed is in the overlay.
    Neither program opens the image below (`-u`, and a null backing), and neither works on an overlay that QEMU has open: the lock of the
    image forbids that. Can be repeated. Raises StorageRefused, and the errors of a repository.
    """
    target = str(Path(arguments["target"]).absolute())
    image = stored_chain.regular_file(arguments["path"], arguments["folder"], arguments["file"])
    report.alive()
    try:
        # A QEMU that was killed may leave clusters that nothing uses. It writes refcounts before the tables that use them
        # (qcow2_cache_set_dependency), so nothing else can be wrong. What `-r leaks` does not mend is a failure of qemu-img.
        qemu_img_watched(["check", "-q", "-r", "leaks", Image(target, "qcow2", ALONE).name()], report)
        # The name of the image below is absolute, so a colon in it is not the end of a protocol's name (path_has_protocol).
        qemu_img_watched(["rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(image), target], report)
    except QemuImgFailed as error:
        raise StorageRefused(what="putting on the repository again", path=target, reason=error.reason, errno=None) from error
    return {}


def _bytes_moved(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/io").read_bytes()
    return b""


def _grant(root: str, layers: Sequence[str], uid: int, report: Report) -> None:
    for path, rights in _ways(root, layers):
        with _grantable(path):
            access_list.grant(path, uid, rights)
        report.alive()


def _revoke(root: str, layers: Sequence[str], uid: int) -> None:
    """The folders above the points stay open to pass: other points may need them, and passing alone shows nothing."""
    for layer in layers:
        with suppress(OSError):
            access_list.revoke(layer, uid)
    for folder in sorted({str(PurePath(layer).parent) for layer in layers}):
        others = (uid in access_list.users(str(entry)) for entry in Path(folder).iterdir())
        with suppress(OSError):
            if folder != root and not any(others):
                access_list.revoke(folder, uid)


def _ways(root: str, layers: Sequence[str]) -> list[tuple[str, int]]:
    folders = {str(parent) for layer in layers for parent in PurePath(layer).parents if parent.is_relative_to(root)}
    return [(folder, PASS) for folder in sorted(folders)] + [(layer, READ) for layer in layers]


@contextmanager
def _grantable(path: str) -> Iterator[None]:
    if Path(path).is_symlink():
        raise ForeignEntry(path=path, reason="a symbolic link")
    try:
        yield
    except OSError as error:
        reason = f"the filesystem does not let the service give QEMU the right to read: {error.strerror}"
        raise OutOfReachOfQemu(path=path, reason=reason) from error


def _obstacle(layers: Sequence[str], arguments: dict[str, Any]) -> tuple[int, str] | None:
    """The error number and the path of the first image that QEMU's user cannot open. None: it can open all."""
    become: dict[str, Any] = {"user": arguments["uid"], "group": arguments["gid"], "extra_groups": arguments["groups"]}
    command = [*DIES_WITH_US, sys.executable, "-I", "-S", "-c", _TRIAL, *layers]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=TRIAL_S, cwd="/", **become)
    except (OSError, subprocess.SubprocessError) as error:
        raise OutOfReachOfQemu(path=layers[0], reason=f"no program could be started as QEMU's user: {error}") from error
    if not done.stdout and done.returncode == 0:
        return None
    number, _, path = done.stdout.partition("\n")
    return (int(number), path.rstrip("\n")) if number.isdigit() else (errno.EACCES, layers[0])


STEPS: dict[str, Callable[[dict[str, Any], Report], dict[str, Any]]] = {
    "look_at_files": look_at_files,
    "open_to_qemu": open_to_qemu,
    "close_to_qemu": close_to_qemu,
    "make_overlay": make_overlay,
    "make_whole": make_whole,
    "stand_on_again": stand_on_again,
}
