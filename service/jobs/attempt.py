"""What one run of a snapshot job has found and made so far; filled by `snapshot`, read by `snapshot_outcome`."""

from dataclasses import dataclass, field
from typing import Any

from service.clock import WallClock
from service.disks.disk_user import DiskUser
from service.disks.overlays import Overlay
from service.errors import StillpointError
from service.freeze.fuse import Fuse
from service.freeze.windows_evidence import VssEvidence
from service.jobs.intent import Intent
from service.model.inventory import Disk, DomainState, Survey
from service.model.policy import FreezeMode, FreezePolicy, HoldLimits
from service.model.scope import DiskSelection, FreezeScope
from service.model.window import WindowRecord
from service.model.windows.drift import Change


@dataclass
class Attempt:
    """What one run of the job has found and made so far."""

    policy: FreezePolicy
    wall: WallClock = field(default_factory=WallClock)
    survey: Survey | None = None
    selection: DiskSelection | None = None
    disk_user: DiskUser | None = None
    scope: FreezeScope | None = None
    freeze_fault: StillpointError | None = None
    overlays: list[Overlay] = field(default_factory=list)
    #: As it was committed before the window.
    intent: Intent = field(default_factory=lambda: Intent(False, []))
    preflush: dict[str, Any] | None = None
    #: What thaws the guest by itself; None: the job wants none, or does not freeze.
    fuse: Fuse | None = None
    #: What is known beside the window of a Windows guest; None: it is none, or it is not frozen.
    vss: VssEvidence | None = None
    #: What changed in a Windows guest since the last look at it.
    drift: list[Change] = field(default_factory=list)
    window: WindowRecord = field(default_factory=WindowRecord)
    #: Target to whether the disk is on its overlay, as libvirt says after the window; None: on a file that is not of this job.
    switched: dict[str, bool | None] = field(default_factory=dict)
    #: The domain was shut off at the survey, and runs now, after the switch of its disks.
    was_started: bool = False
    #: A file below that another program writes to after the switch, and that program. Such a file is not a point in time.
    written: tuple[str, str] | None = None
    #: The error text about overlays that no disk uses and that could not be removed.
    left: str | None = None

    @property
    def will_freeze(self) -> bool:
        return self.is_running and self.policy.mode is not FreezeMode.off and self.freeze_fault is None

    @property
    def hold_limits(self) -> HoldLimits:
        """What Windows can hold is a limit only where something is held."""
        return self.policy.hold_limits(is_windows=self.found.is_windows, holds=self.will_freeze)

    @property
    def is_running(self) -> bool:
        return self.found.state is not DomainState.shut_off

    @property
    def was_running(self) -> bool:
        """While the point was taken, as far as it is known."""
        return self.is_running or self.was_started

    @property
    def point_was_taken(self) -> bool:
        return bool(self.switched) and all(self.switched.values())

    @property
    def is_in_doubt(self) -> bool:
        return not self.point_was_taken and any(is_on is not False for is_on in self.switched.values())

    @property
    def taken(self) -> list[Disk]:
        """The disks that the verdict is about. What a caller copies at a gate is not known: every disk that the guest writes."""
        if self.selection is not None:
            return self.selection.taken
        return [disk for disk in self.found.disks if disk.device in ("disk", "lun") and not disk.read_only]

    @property
    def found(self) -> Survey:
        assert self.survey is not None
        return self.survey
