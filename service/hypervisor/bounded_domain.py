"""A domain whose calls have a time limit, so that no call can hang its caller."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.deadlines import HELPERS, CallTimedOut, HelperThreads
from service.errors import LibvirtCallTimedOut
from service.hypervisor.handle import DomainHandle

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Seconds. After them the call is given up, and its caller gets LibvirtCallTimedOut.

    The limits are longer than libvirt's own limits, so that libvirt's own error comes first if libvirt still works.
    """

    #: libvirt.open, and the first questions to a new connection.
    open_s: float = 15.0
    close_s: float = 2.0
    #: Calls that need no lock of the domain's jobs.
    read_s: float = 15.0
    #: Calls that wait for that lock: libvirt gives up after 30 s (VIR_JOB_WAIT_TIME).
    query_s: float = 40.0
    #: Added to the limit of an agent command: 30 s for the agent's job lock, 5 s for guest-sync.
    agent_margin_s: float = 35.0
    #: The call flushes the guest's writes and switches the disks. Slow storage alone must not put the disks in doubt.
    snapshot_s: float = 120.0
    block_job_s: float = 60.0
    #: libvirt waits for QEMU's answer on its monitor, and QEMU flushes the disk before it makes a bitmap persistent.
    checkpoint_s: float = 60.0
    #: The start of QEMU: libvirt labels files and waits for the monitor. The stop: SIGTERM, 15 s, SIGKILL, and 15 s more.
    power_s: float = 120.0


BOUNDS = Bounds()

SNAPSHOT_CALL = "virDomainSnapshotCreateXML"
PIVOT_CALL = "virDomainBlockJobAbort"


def domain_lane(uuid: str) -> str:
    return f"domain {uuid}"


def agent_lane(uuid: str) -> str:
    # Not the lane of the domain, because hung questions about a domain must never delay its thaw.
    return f"agent {uuid}"


class BoundedDomain:
    """A DomainHandle around another DomainHandle. Every call may also raise LibvirtCallTimedOut.

    `on_hang` is called for each call that hung, because the connection may be the reason.
    """

    def __init__(
        self,
        handle: DomainHandle,
        bounds: Bounds = BOUNDS,
        on_hang: Callable[[], None] | None = None,
        helpers: HelperThreads = HELPERS,
    ) -> None:
        self._handle = handle
        self._bounds = bounds
        self._on_hang = on_hang
        self._helpers = helpers
        self._domain_lane, self._agent_lane = domain_lane(handle.uuid()), agent_lane(handle.uuid())

    def name(self) -> str:
        return self._handle.name()

    def uuid(self) -> str:
        return self._handle.uuid()

    def state(self) -> tuple[int, int]:
        return self._run("virDomainGetState", self._bounds.read_s, self._handle.state)

    def instance(self) -> int:
        return self._run("virDomainGetID", self._bounds.read_s, self._handle.instance)

    def is_persistent(self) -> bool:
        return self._run("virDomainIsPersistent", self._bounds.read_s, self._handle.is_persistent)

    def has_managed_save(self) -> bool:
        return self._run("virDomainHasManagedSaveImage", self._bounds.read_s, self._handle.has_managed_save)

    def snapshot_names(self) -> list[str]:
        return self._run("virDomainSnapshotListNames", self._bounds.read_s, self._handle.snapshot_names)

    def checkpoint_names(self) -> list[str]:
        return self._run("virDomainListAllCheckpoints", self._bounds.read_s, self._handle.checkpoint_names)

    def xml(self) -> str:
        return self._run("virDomainGetXMLDesc", self._bounds.read_s, self._handle.xml)

    def inactive_xml(self) -> str:
        return self._run("virDomainGetXMLDesc", self._bounds.read_s, self._handle.inactive_xml)

    def secure_xml(self) -> str:
        return self._run("virDomainGetXMLDesc", self._bounds.read_s, self._handle.secure_xml)

    def agent_command(self, command: str, timeout_s: int) -> str:
        limit_s = timeout_s + self._bounds.agent_margin_s
        return self._run(
            "virDomainQemuAgentCommand", limit_s, lambda: self._handle.agent_command(command, timeout_s), lane=self._agent_lane
        )

    def snapshot_create(self, xml: str, flags: int) -> None:
        self._run(SNAPSHOT_CALL, self._bounds.snapshot_s, lambda: self._handle.snapshot_create(xml, flags))

    def block_job(self, target: str) -> dict[str, Any]:
        return self._run("virDomainGetBlockJobInfo", self._bounds.query_s, lambda: self._handle.block_job(target))

    def block_capacity(self, target: str) -> int:
        return self._run("virDomainGetBlockInfo", self._bounds.query_s, lambda: self._handle.block_capacity(target))

    def bytes_written(self, target: str) -> int:
        return self._run("virDomainBlockStats", self._bounds.query_s, lambda: self._handle.bytes_written(target))

    def block_commit_active(self, target: str) -> None:
        self._run("virDomainBlockCommit", self._bounds.block_job_s, lambda: self._handle.block_commit_active(target))

    def block_commit(self, target: str, base: str, top: str) -> None:
        self._run("virDomainBlockCommit", self._bounds.block_job_s, lambda: self._handle.block_commit(target, base, top))

    def block_pivot(self, target: str) -> None:
        self._run(PIVOT_CALL, self._bounds.block_job_s, lambda: self._handle.block_pivot(target))

    def block_abort(self, target: str) -> None:
        self._run(PIVOT_CALL, self._bounds.block_job_s, lambda: self._handle.block_abort(target))

    def job_type(self) -> int:
        return self._run("virDomainGetJobInfo", self._bounds.query_s, self._handle.job_type)

    def file_error(self, path: str) -> int | None:
        return self._run("virDomainSaveImageGetXMLDesc", self._bounds.query_s, lambda: self._handle.file_error(path))

    def capabilities(self) -> str:
        return self._run("virConnectGetCapabilities", self._bounds.query_s, self._handle.capabilities)

    def checkpoint_create(self, xml: str, flags: int) -> None:
        self._run("virDomainCheckpointCreateXML", self._bounds.checkpoint_s, lambda: self._handle.checkpoint_create(xml, flags))

    def checkpoint_xml(self, name: str, flags: int) -> str:
        return self._run("virDomainCheckpointGetXMLDesc", self._bounds.query_s, lambda: self._handle.checkpoint_xml(name, flags))

    def checkpoint_delete(self, name: str, flags: int) -> None:
        self._run("virDomainCheckpointDelete", self._bounds.checkpoint_s, lambda: self._handle.checkpoint_delete(name, flags))

    def block_counters(self, target: str) -> dict[str, Any]:
        return self._run("virDomainBlockStatsFlags", self._bounds.query_s, lambda: self._handle.block_counters(target))

    def disk_errors(self) -> dict[str, int]:
        return self._run("virDomainGetDiskErrors", self._bounds.query_s, self._handle.disk_errors)

    def block_pull(self, target: str, bytes_s: int) -> None:
        self._run("virDomainBlockPull", self._bounds.block_job_s, lambda: self._handle.block_pull(target, bytes_s))

    def start(self) -> None:
        self._run("virDomainCreate", self._bounds.power_s, self._handle.start)

    def shut_down(self, flags: int) -> None:
        self._run("virDomainShutdownFlags", self._bounds.power_s, lambda: self._handle.shut_down(flags))

    def destroy(self) -> None:
        self._run("virDomainDestroy", self._bounds.power_s, self._handle.destroy)

    def resume(self) -> None:
        self._run("virDomainResume", self._bounds.query_s, self._handle.resume)

    def undefine(self, flags: int) -> None:
        self._run("virDomainUndefineFlags", self._bounds.query_s, lambda: self._handle.undefine(flags))

    def define(self, xml: str) -> None:
        self._run("virDomainDefineXML", self._bounds.query_s, lambda: self._handle.define(xml))

    def _run(self, call: str, limit_s: float, function: Callable[[], T], lane: str | None = None) -> T:
        try:
            return self._helpers.run(function, limit_s, call=call, lane=lane or self._domain_lane)
        except CallTimedOut as hung:
            if self._on_hang is not None and hung.waited_s:
                self._on_hang()
            raise LibvirtCallTimedOut(call=call, domain=self.name(), timeout_ms=hung.waited_s * 1000, why=hung.why) from hung
