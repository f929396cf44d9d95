"""The results of a frozen pass, as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from service.clock import WallClock
from service.freeze.fuse import Fuse
from service.freeze.windows_evidence import VssEvidence
from service.model.inventory import Disk, DomainState, Survey
from service.model.policy import FreezePolicy, HoldLimits
from service.model.scope import DiskSelection, FreezeScope
from service.model.window import FreezeReply, ThawOutcome, WindowRecord
from service.model.windows.drift import Change


@dataclass(frozen=True)
class Terms:
    """The decision of the preflight: what is frozen, and for which disks."""

    policy: FreezePolicy
    survey: Survey
    #: None: the service does not know which disks the caller will copy.
    selection: DiskSelection | None
    #: None: the guest does not run, or no freeze was asked for.
    scope: FreezeScope | None = None
    #: Why nothing is frozen; None: the guest is.
    unfrozen: FreezeReply | None = None

    @property
    def will_freeze(self) -> bool:
        return self.unfrozen is None

    @property
    def is_running(self) -> bool:
        return self.survey.state is not DomainState.shut_off

    @property
    def hold_limits(self) -> HoldLimits:
        """The limits of the hold. The limit of Windows counts only if something is held."""
        return self.policy.hold_limits(is_windows=self.survey.is_windows, holds=self.will_freeze)

    @property
    def taken(self) -> list[Disk]:
        """The disks that the verdict is about: those of the job, or every disk that the guest writes."""
        if self.selection is not None:
            return self.selection.taken
        return [disk for disk in self.survey.disks if disk.device in ("disk", "lun") and not disk.read_only]


@dataclass(frozen=True)
class Writers:
    """`vss` None: the guest is not a Windows, or is not frozen. `drift`: what changed since the last look at it."""

    vss: VssEvidence | None = None
    drift: Sequence[Change] = ()


NO_WRITERS = Writers()


@dataclass(frozen=True)
class Passed:
    """`fuse`: what thaws the guest by itself; None: the job wants none, or does not freeze."""

    terms: Terms
    wall: WallClock
    window: WindowRecord
    fuse: Fuse | None
    writers: Writers = field(default_factory=Writers)
    preflush: dict[str, Any] | None = None

    @property
    def vss(self) -> VssEvidence | None:
        return self.writers.vss

    @property
    def may_be_frozen(self) -> bool:
        """No thaw was answered, and the guest was not seen to write. Recovery or a person must thaw the guest."""
        return self.terms.will_freeze and self.window.thaw.outcome is ThawOutcome.unanswered and not self.window.writes_afterwards
