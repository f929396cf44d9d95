"""Checks that libvirt and QEMU's user reach the files that this service makes. A small file is made for the check, and removed again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from service import bounded_io
from service.config import Settings
from service.disks import file_identity, rehearsal
from service.disks.overlay_file import QEMU_IMG
from service.errors import LibvirtSeesOtherFiles, LibvirtUnavailable, StillpointError
from service.hypervisor.connection import HostConnection
from service.hypervisor.security_labels import DAC, user_of
from service.model.file_identity import FileIdentity
from service.worker.finding import Finding, Health

QEMU_IMG_ANSWERS_S = 10
"""Seconds for `qemu-img --version`. After that qemu-img counts as not working."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def examine(settings: Settings) -> Iterator[Finding]:
    yield _qemu_img()
    folder = settings.overlay_dir or settings.state_dir
    connection = HostConnection(settings.libvirt_uri)
    try:
        yield from _tried_in(folder, connection, is_for_qemu=settings.overlay_dir is not None)
    except LibvirtUnavailable:
        # The finding about libvirt itself has said so.
        return
    except StillpointError as error:
        yield Finding(Health.fail, "files", error.detail, error.remedy)
    finally:
        connection.close()


def _qemu_img() -> Finding:
    remedy = "Install it (`apt install qemu-utils`), and see that `qemu-img --version` works."
    if shutil.which(QEMU_IMG) is None:
        return Finding(Health.fail, QEMU_IMG, "the program is not installed: no overlay can be made", remedy)
    try:
        version = subprocess.run(
            [QEMU_IMG, "--version"], check=True, capture_output=True, text=True, errors="replace", timeout=QEMU_IMG_ANSWERS_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(Health.fail, QEMU_IMG, f"the program does not work: {error}", remedy)
    return Finding(Health.ok, QEMU_IMG, version.stdout.partition("\n")[0])


def _tried_in(folder: Path, connection: HostConnection, *, is_for_qemu: bool) -> Iterator[Finding]:
    """Raises StorageRefused, StorageNotAnswering."""
    if not bounded_io.translated_call("looking at", folder, folder.is_dir):
        # The finding about the folder itself has said so.
        return
    probe = folder / f".stillpoint-doctor-{uuid4().hex}"
    made = bounded_io.translated_call("making a file in", folder, partial(_make, probe))
    try:
        seen = _seen_by_libvirt(probe, connection)
        yield seen
        if is_for_qemu and seen.health is Health.ok:
            yield _opened_by_qemu(probe, connection)
    finally:
        with suppress(StillpointError):
            bounded_io.translated_call("removing", probe, partial(file_identity.unlink, probe, made))


def _make(probe: Path) -> FileIdentity:
    descriptor = os.open(probe, _NEW, 0o600)
    try:
        return FileIdentity.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _seen_by_libvirt(probe: Path, connection: HostConnection) -> Finding:
    number = connection.file_error(str(probe))
    if number is None:
        return Finding(Health.ok, "libvirt's files", "this libvirt cannot be asked; preflight asks again")
    if number:
        fault = LibvirtSeesOtherFiles(path=str(probe), uri=connection.uri, who="libvirt", reason=os.strerror(number))
        return Finding(Health.fail, "libvirt's files", fault.detail, fault.remedy)
    return Finding(Health.ok, "libvirt's files", f"libvirt sees files that are made in {probe.parent}")


def _opened_by_qemu(probe: Path, connection: HostConnection) -> Finding:
    driver = connection.security_drivers().get(DAC)
    user = user_of(driver.label) if driver is not None else None
    if user is None:
        return Finding(Health.ok, "QEMU's user", "libvirt runs QEMU as its own user")
    answer = rehearsal.opened(user, "/", [{"path": str(probe), "lend": True}])
    if "untried" in answer:
        return Finding(
            Health.warn, "QEMU's user", f"whether {user} can open overlays was not tried: {answer['untried']}", "Run it as root."
        )
    (result,) = answer["files"]
    if result["error"]:
        fault = rehearsal.cannot_open(user, str(probe), result)
        return Finding(Health.fail, "QEMU's user", fault.detail, fault.remedy)
    return Finding(Health.ok, "QEMU's user", f"{user} can open files in {probe.parent}")
