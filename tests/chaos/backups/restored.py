"""What a restore of a round makes: files in a folder of its own, a domain beside the lane's, or new disks of the lane's guest."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from tests.chaos.backups.repository import Moment
from tests.chaos.invariants import Breach
from tests.chaos.remains import GUESTS
from tests.chaos.stage import Stage
from tests.lab.command import run
from tests.lab.console import Console
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class Restored:
    """`is_started`: the restored domain runs in the end. It has a console of its own, and the lane's guest runs beside it."""

    def __init__(self, stage: Stage, mode: str, *, is_started: bool) -> None:
        self.mode = mode
        self.is_started = (is_started and mode == "new") or mode in ("instant", "in_place")
        self.folder = stage.guest.folder / "restored"
        self.name = stage.guest.name.replace(GUESTS, f"{GUESTS}r")
        self._stage = stage

    def request(self, point_id: str, rate: int | None) -> dict[str, Any]:
        common = {"kind": "restore", "recovery_point": point_id, "mode": self.mode, "rate_limit_bytes": rate}
        match self.mode:
            case "files":
                return {**common, "folder": str(self.folder)}
            case "in_place":
                return {**common, "stop": True, "start": True, "folder": str(self.folder)}
            case _:
                return {**common, "folder": str(self.folder), "name": self.name, "identity": "new", "start": self.is_started}

    def make_room(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o777)

    # --- what is true of it ---------------------------------------------------------------------

    def half_made(self) -> Iterator[Breach]:
        """After a failed job: neither a domain nor a file of it is left."""
        if self.mode in ("new", "instant") and self._domain() is not None:
            yield Breach("stories_untrue", f"the restore failed, and the domain {self.name} is defined")
        if left := sorted(file.name for file in self.folder.iterdir()):
            yield Breach("stories_untrue", f"the restore failed, and its files are left: {left}")

    def not_running(self) -> Iterator[Breach]:
        """After a job that was cancelled behind its guest."""
        domain = self._domain()
        if domain is None or not domain.isActive():
            yield Breach("stories_untrue", f"the restore was cancelled behind its guest, and {self.name} does not run")

    def not_as_the_point(self, image: Path, moment: Moment | None) -> Iterator[Breach]:
        """`image`: the disk of the point."""
        try:
            problems = list(self._booted_wrong(moment) if self.is_started else self._differs(image))
        except (LabError, libvirt.libvirtError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        for problem in problems:
            yield Breach("points_unrestorable", f"restored ({self.mode}): {problem}")

    def _differs(self, image: Path) -> Iterator[str]:
        restored = next(self.folder.glob("*vda*.qcow2"))
        try:
            run(["qemu-img", "compare", "-U", image, restored])
        except LabError as error:
            yield str(error)

    def _booted_wrong(self, moment: Moment | None) -> Iterator[str]:
        guest = self._stage.guest if self.mode == "in_place" else LabGuest(GuestOptions(name=self.name))
        console = Console(_serial(guest.domain))
        console.wait("^LAB ready", 60)
        console.wait("^METER ", 60)
        guest.wait_agent()
        first = console.heartbeats()[0]
        if moment is not None and first.acknowledged < moment.acknowledged:
            yield f"write {moment.acknowledged} was durable before the backup, and the restored disk ends with {first.acknowledged}"
        top = guest.active_sources()["vda"]
        if top.parent != self.folder:
            yield f"the restored domain is on {top}"
        files = run(["qemu-img", "info", "--force-share", "--backing-chain", "--output=human", top]).count("image: ")
        if files != 1:
            yield f"the job has ended, and the disk still has {files - 1} files below it"

    # --- its end --------------------------------------------------------------------------------

    def remove(self) -> None:
        """The lane's guest runs again. After a restore in place it stays on its new disk, as if it had always been there."""
        if (domain := self._domain()) is not None:
            with suppress(libvirt.libvirtError):
                domain.destroy()
            domain.undefineFlags(_UNDEFINE)
        if self.mode == "in_place":
            self._settle_in_place()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._stage.revive_guest()

    def _settle_in_place(self) -> None:
        guest = self._stage.guest
        now = guest.active_sources()["vda"]
        if now.parent != self.folder:
            return
        self._stage.guest.power_off()
        old, kept = guest.disks["vda"], guest.folder / "vda.qcow2"
        with suppress(libvirt.libvirtError):
            for checkpoint in guest.domain.listAllCheckpoints():
                checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
        old.unlink(missing_ok=True)
        now.rename(kept)
        definition = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        guest.connection.defineXML(definition.replace(str(now), str(kept)))
        guest.disks["vda"] = kept

    def _domain(self) -> Any:
        named = [domain for domain in self._stage.guest.connection.listAllDomains() if domain.name() == self.name]
        return named[0] if named else None


def _serial(domain: Any) -> Path:
    """The file of its console, which a restored domain does not share with its original."""
    source = ElementTree.fromstring(domain.XMLDesc(0)).find("devices/serial/source")
    if source is None:
        raise LabError(f"{domain.name()} has no console")
    return Path(source.get("path", ""))
