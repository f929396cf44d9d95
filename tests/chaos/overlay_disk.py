"""A small disk of its own for a lane's overlays: it can be full, read-only or gone, and nothing else of the host is."""

import os
import time
from contextlib import AbstractContextManager, suppress

import libvirt

from tests.chaos.stage import Stage, until
from tests.lab.command import run
from tests.lab.disks import make_ext4
from tests.lab.namespaces import libvirt_pids, ways_into
from tests.lab.places import LabError

SIZE_MB = 96
RESERVE_BYTES = 8 * 1024 * 1024
_SETTINGS = ("STILLPOINT_OVERLAY_DIR", "STILLPOINT_OVERLAY_RESERVE_BYTES")


class OverlayDisk:
    """Known by its lane alone. Only root can mount one; without it, the lane goes without these faults."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # Where QEMU may look: the lane's own folder is closed to its user.
        self.folder = stage.guest.folder / "overlays"
        self._image = stage.state_dir.with_name(f"{stage.state_dir.name}.overlays.img")
        self._ballast = self.folder / "ballast"

    @property
    def is_mounted(self) -> bool:
        return os.path.ismount(self.folder)

    def put_in(self) -> None:
        """The guest on its first file, the disk mounted, and a worker that makes its overlays there."""
        if not self._stage.has_small_disk:
            return
        if self.is_mounted:
            # The lanes before this one had the same folder.
            self._stage.note(f"a disk that could not be taken out before is taken out now: {self.folder}")
            self.take_out()
        self._stage.merge_all()
        make_ext4(self._image, mb=SIZE_MB, label="overlays")
        self.folder.mkdir()
        self._mount()
        # The user that QEMU runs as.
        self.folder.chmod(0o777)
        self._stage.overlay_folders.append(self.folder)
        self._stage.worker.environment.update(zip(_SETTINGS, (str(self.folder), str(RESERVE_BYTES)), strict=True))
        self._stage.restart_worker()
        until(self._is_published, 30, "the worker did not come back")

    def _mount(self) -> None:
        """Where the lab's libvirtd has a mount namespace of its own (daemon.py), also there: it would not see the disk."""
        device = run(["losetup", "--find", "--show", self._image]).strip()
        try:
            run(["mount", device, self.folder])
            with self._other_namespaces() as ways:
                for way in ways:
                    run([*way, "mount", device, self.folder])
        finally:
            # Detached by itself when the last mount of it is gone.
            run(["losetup", "--detach", device])

    def _other_namespaces(self) -> AbstractContextManager[list[list[str]]]:
        return ways_into([*([str(self._stage.qemu_pid())] if self._stage.is_running() else []), *libvirt_pids()])

    def _is_published(self) -> bool:
        return self._stage.api.request("GET", f"/api/v1/domains/{self._stage.guest.name}").status_code == 200

    def take_out(self) -> None:
        """No file of the guest is on it afterwards, and it is gone whatever happened, also when it was put in only halfway."""
        if not (self.is_mounted or self._image.exists()):
            return
        try:
            self._stage.merge_all()
        finally:
            self._forget()
            self._unmount()
            self._stage.restart_worker()

    def _forget(self) -> None:
        for name in _SETTINGS:
            self._stage.worker.environment.pop(name, None)
        if self.folder in self._stage.overlay_folders:
            self._stage.overlay_folders.remove(self.folder)

    def _unmount(self) -> None:
        # Detached now, and gone when a QEMU that still has it open ends.
        while self.is_mounted:
            run(["umount", "--lazy", self.folder])
        with self._other_namespaces() as ways:
            for way in ways:
                # A libvirtd that was started since has never seen it.
                with suppress(LabError):
                    run([*way, "umount", "--lazy", self.folder])
        if self.folder.exists():
            self.folder.rmdir()
        self._image.unlink(missing_ok=True)

    def heal(self) -> None:
        """Writable, with room, answering; a guest that stood for want of room goes on, as after an administrator."""
        if not self.is_mounted:
            return
        self.unhang()
        self.make_writable()
        self._ballast.unlink(missing_ok=True)
        if self.guest_waits_for_room():
            self._stage.guest.domain.resume()

    # --- what can happen to it ------------------------------------------------------------------

    def fill(self, *, but_bytes: int = 0) -> None:
        with self._ballast.open("wb") as file:
            size, step = 0, 16 * 1024 * 1024
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
            file.truncate(max(0, size - but_bytes))

    def guest_waits_for_room(self) -> bool:
        state, reason = self._stage.guest.domain.state()
        return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)

    def make_read_only(self) -> bool:
        """False: a file on it is open for writing, and the kernel refuses."""
        try:
            run(["mount", "-o", "remount,ro", self.folder])
        except LabError:
            return False
        return True

    def make_writable(self) -> None:
        run(["mount", "-o", "remount,rw", self.folder])

    def hang(self) -> float:
        """Every call that would write blocks in the kernel from now on, as on a dead NFS. Answers time.monotonic()."""
        begun = time.monotonic()
        run(["fsfreeze", "--freeze", self.folder])
        return begun

    def unhang(self) -> None:
        # It may not be frozen.
        with suppress(LabError):
            run(["fsfreeze", "--unfreeze", self.folder])
