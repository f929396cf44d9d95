"""A domain of this host and the guest in it: freeze, thaw, snapshot, agent commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.deadlines import HELPERS, CallTimedOut, HelperThreads
from service.errors import AgentBusy, GuestAlreadyFrozen, LibvirtCallFailed, LibvirtCallTimedOut
from service.hypervisor import agent, program, security_labels, states
from service.hypervisor.block_statistics import times_of
from service.hypervisor.bounded_domain import PIVOT_CALL, SNAPSHOT_CALL, domain_lane
from service.hypervisor.calls import LibvirtCalls
from service.hypervisor.checkpoints import Checkpoints
from service.hypervisor.commits import Commits
from service.hypervisor.disk_addresses import DiskAddresses
from service.hypervisor.exec_result import ExecResult
from service.hypervisor.handle import DomainHandle, libvirt
from service.hypervisor.node_names import retry_node_names
from service.hypervisor.power import PauseReason, Power
from service.hypervisor.program import Running
from service.hypervisor.security_labels import SecurityLabel
from service.hypervisor.xml import Mirror, agent_is_connected, disks_of, has_agent_channel, mirror_of, snapshot_xml
from service.model.impact import BlockTimes
from service.model.inventory import Disk, DomainState, Filesystem

STATUS = "guest-fsfreeze-status"


@dataclass(frozen=True)
class PullProgress:
    """By QEMU's own count: `total_bytes` is the size of the disk, also where most of it is empty."""

    done_bytes: int
    total_bytes: int


class Guest:
    """Small verbs over one domain. Only `calls` and `agent` translate libvirt's errors."""

    def __init__(self, handle: DomainHandle, uri: str, helpers: HelperThreads = HELPERS) -> None:
        self._handle = handle
        self._uri = uri
        self._helpers = helpers
        self.name = handle.name()
        self.uuid = handle.uuid()
        self._libvirt = LibvirtCalls(self.name, uri)
        self.checkpoints = Checkpoints(handle, self._libvirt)
        self.commits = Commits(handle, self._libvirt)
        self._power = Power(handle, self._libvirt)

    # --- what it is -----------------------------------------------------------------------------

    def state(self) -> DomainState:
        state, _ = self._libvirt("virDomainGetState", self._handle.state)
        return states.STATES.get(state, DomainState.other)

    def is_shut_off(self) -> bool:
        return self.state() is DomainState.shut_off

    def was_shut_off_cleanly(self) -> bool | None:
        """None: libvirt does not know (libvirtd was restarted since then), or the domain is not shut off."""
        return states.was_clean(*self._libvirt("virDomainGetState", self._handle.state))

    def has_crashed(self) -> bool:
        """The domain is off because its QEMU was killed or ended by itself."""
        return states.has_crashed(*self._libvirt("virDomainGetState", self._handle.state))

    def was_migrated_away(self) -> bool:
        """The domain is shut off here because it was migrated to another host."""
        return self._libvirt("virDomainGetState", self._handle.state) == states.MIGRATED

    def is_moving(self) -> bool:
        """The domain is being migrated, saved or restored: it is paused, or runs partly on another host."""
        return self._libvirt("virDomainGetState", self._handle.state) in states.MOVING

    def has_managed_save(self) -> bool:
        """The next start of the domain continues with saved memory, and with the files that its disks were on at the save."""
        return self._libvirt("virDomainHasManagedSaveImage", self._handle.has_managed_save)

    def snapshot_names(self) -> list[str]:
        """Snapshots that libvirt has metadata of. Snapshots of this service have no metadata."""
        return self._libvirt("virDomainSnapshotListNames", self._handle.snapshot_names)

    def checkpoint_names(self) -> list[str]:
        """All checkpoints, also those of other tools. libvirt takes no snapshot of a domain that is shut off and has a checkpoint."""
        return self.checkpoints.names()

    def instance(self) -> int:
        """A number that changes with each start of the domain, but not with a restart of libvirtd. -1: the domain does not run."""
        return self._libvirt("virDomainGetID", self._handle.instance)

    def xml(self) -> str:
        return self._libvirt("virDomainGetXMLDesc", self._handle.xml)

    def disks(self) -> list[Disk]:
        return disks_of(self.xml())

    def sources(self) -> dict[str, str | None]:
        """By target: the file that libvirt names as the active file of the disk."""
        return {disk.target: disk.source for disk in self.disks()}

    def settled_sources(self) -> dict[str, str | None]:
        """`sources`, unless a call that moves disks still runs in its helper thread.

        Raises LibvirtCallTimedOut while a snapshot or pivot that was given up has not returned, because it may still move disks.
        """
        for call in (SNAPSHOT_CALL, PIVOT_CALL):
            if self._helpers.hangs(call, domain_lane(self.uuid)):
                raise LibvirtCallTimedOut(
                    call=call, domain=self.name, timeout_ms=0, why="the call has not returned yet, and may still move disks"
                )
        return self.sources()

    def persistent_sources(self) -> dict[str, str | None]:
        """Like `sources`, for the definition that the next start will use."""
        return {disk.target: disk.source for disk in disks_of(self.inactive_xml())}

    def is_persistent(self) -> bool:
        return self._libvirt("virDomainIsPersistent", self._handle.is_persistent)

    def has_agent_channel(self) -> bool:
        return has_agent_channel(self.xml())

    def agent_is_connected(self) -> bool | None:
        return agent_is_connected(self.xml())

    def capacity(self, target: str) -> int:
        """Virtual size of a disk in bytes."""
        return self._libvirt("virDomainGetBlockInfo", lambda: self._handle.block_capacity(target))

    def bytes_written(self, target: str) -> int:
        """Bytes that the guest has written to a disk since the domain was started."""
        return self._libvirt("virDomainBlockStats", lambda: self._handle.bytes_written(target))

    def running_libvirt_job(self) -> int:
        """VIR_DOMAIN_JOB_… of a backup, migration or save in progress. 0: no such job runs."""
        return self._libvirt("virDomainGetJobInfo", self._handle.job_type)

    def block_job(self, target: str) -> dict[str, Any]:
        """The block job on a disk. Empty: no block job runs."""
        return self._libvirt("virDomainGetBlockJobInfo", lambda: self._handle.block_job(target))

    def block_latency(self, target: str) -> BlockTimes:
        """Counters of a disk of a running domain, from which the mean latency between two looks follows."""
        return times_of(self._libvirt("virDomainBlockStatsFlags", lambda: self._handle.block_counters(target)))

    def disk_errors(self) -> dict[str, str]:
        """By target: `no_space` or `unspecified`, for each disk with an I/O error. It may be named still after the guest has continued."""
        errors = self._libvirt("virDomainGetDiskErrors", self._handle.disk_errors)
        no_space = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE
        return {target: "no_space" if error == no_space else "unspecified" for target, error in errors.items() if error}

    # --- running, stopping, defining ------------------------------------------------------------

    def pause_reason(self) -> PauseReason | None:
        """Why the domain is paused. None: it is not paused."""
        return self._power.pause_reason()

    def start(self) -> None:
        """A domain that runs is left alone."""
        self._power.start()

    def stop(self, graceful_s: float, safe_point: Callable[[], None] | None = None) -> bool:
        """Ask the guest to shut down, and switch it off after `graceful_s`. Whether the guest shut itself down."""
        return self._power.stop(graceful_s, safe_point)

    def destroy(self) -> None:
        """Switch off at once. A domain that is off is left alone."""
        self._power.destroy()

    def resume(self) -> None:
        self._power.resume()

    def undefine(self, *, keep_nvram: bool) -> None:
        """Remove the definition, with libvirt's records of snapshots and checkpoints. `keep_nvram`: the files of NVRAM and TPM stay."""
        self._power.undefine(keeps_firmware=keep_nvram)

    def inactive_xml(self) -> str:
        """The definition that the next start will use."""
        return self._libvirt("virDomainGetXMLDesc", self._handle.inactive_xml)

    def secure_xml(self) -> str:
        """Like `inactive_xml`, with the passwords in it: for a change that keeps them. It is never stored."""
        return self._libvirt("virDomainGetXMLDesc", self._handle.secure_xml)

    def redefine(self, xml: str) -> None:
        """Replace the definition that the next start will use. `xml` has the name and the UUID of this domain."""
        self._power.define(xml)

    # --- the files of its host ------------------------------------------------------------------

    @property
    def uri(self) -> str:
        return self._uri

    def file_error(self, path: str) -> int | None:
        """The number of the error that libvirt gets when it opens `path`. 0: no error. None: this libvirt cannot be asked."""
        return self._libvirt("virDomainSaveImageGetXMLDesc", lambda: self._handle.file_error(path))

    def security_labels(self) -> dict[str, SecurityLabel]:
        """By security model: the labels of the running QEMU, or of the definition if the domain is shut off."""
        return security_labels.of_domain(self.xml())

    def security_drivers(self) -> dict[str, SecurityLabel]:
        """By security model: the drivers of the host, each with the label of a QEMU whose definition names no label."""
        return security_labels.of_host(self._libvirt("virConnectGetCapabilities", self._handle.capabilities))

    # --- merging an overlay back ----------------------------------------------------------------

    def start_merge(self, target: str) -> None:
        """Begin to merge the active file of a disk into the file right below."""
        self._libvirt("virDomainBlockCommit", lambda: self._handle.block_commit_active(target))

    def mirror(self, target: str) -> Mirror | None:
        """The merge of a disk that is under way, or another block job that writes the disk into a file."""
        return mirror_of(self.xml(), target)

    def merge_progress(self, target: str) -> tuple[int, int] | None:
        """Bytes that the merge of a disk has done, and of how many. Both grow while the guest writes. None: QEMU does not say yet."""
        try:
            job = self.block_job(target)
        except LibvirtCallFailed:
            # The domain was shut off, or the disk taken away. The caller sees that where it looks for the merge.
            return None
        is_merge = job.get("type") == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT
        return (int(job["cur"]), int(job["end"])) if is_merge and int(job["end"]) > 0 else None

    def pivot(self, target: str) -> None:
        """Switch the disk to the file below. The overlay is not used any more."""
        self._libvirt(PIVOT_CALL, lambda: self._handle.block_pivot(target))

    def stop_merge(self, target: str) -> None:
        """Stop the merge. The disk continues with its overlay."""
        self._libvirt(PIVOT_CALL, lambda: self._handle.block_abort(target))

    # --- making an instant restore whole --------------------------------------------------------

    def block_pull(self, target: str, bytes_s: int | None = None) -> None:
        """Begin to copy the data of all files below into the active file. When the job has ended, the active file stands alone."""
        self._libvirt("virDomainBlockPull", lambda: self._handle.block_pull(target, bytes_s or 0))

    def pull_progress(self, target: str) -> PullProgress | None:
        """None: no pull runs on this disk. Then `is_whole` tells whether it ended well."""
        job = self.block_job(target)
        return PullProgress(int(job["cur"]), int(job["end"])) if job.get("type") == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL else None

    def is_whole(self, target: str) -> bool:
        """The active file of the disk stands on no other file."""
        return any(disk.target == target and disk.chain_depth == 0 for disk in self.disks())

    # --- the agent ------------------------------------------------------------------------------

    def agent(self, command: str, arguments: dict[str, Any] | None = None, *, timeout_ms: int = agent.QUERY_TIMEOUT_MS) -> Any:
        """Send one agent command. Raises the errors of `service.hypervisor.agent.call`."""
        return agent.call(self._handle, command, arguments, timeout_ms=timeout_ms)

    def ping(self) -> None:
        self.agent("guest-ping", timeout_ms=agent.PING_TIMEOUT_MS)

    def is_frozen(self) -> bool:
        """The answer of the agent. On Windows the answer is a flag of the agent, and not a measurement (F§0.1)."""
        return bool(self.agent(STATUS, timeout_ms=agent.PING_TIMEOUT_MS) == "frozen")

    def require_idle_agent(self, within_ms: int) -> None:
        """The last question before a freeze: no other client uses the agent, and no client has frozen the guest.

        Raises AgentBusy if the agent does not answer in time: libvirt lets a command wait 30 s for the command of another client, and
        inside the window that wait would be a stall. After AgentBusy nothing may be frozen, because the question is still in libvirt's
        queue and would come before our thaw. Raises GuestAlreadyFrozen, and the errors of an agent command.
        """
        # The same limit inside libvirt, so that a question that was given up does not hold the agent for long later.
        lane, ask = f"agent-check {self.uuid}", lambda: self.agent(STATUS, timeout_ms=within_ms)
        try:
            frozen = self._helpers.run(ask, within_ms / 1000, call=STATUS, lane=lane) == "frozen"
        except CallTimedOut as hung:
            raise AgentBusy(domain=self.name, command=STATUS, timeout_ms=within_ms, held_by="another client or a hung command") from hung
        if frozen:
            raise GuestAlreadyFrozen(domain=self.name)

    def filesystems(self) -> list[Filesystem]:
        """Mounted filesystems, with the targets of the disks below them. Fails while the guest is frozen (F§4.1)."""
        rows = self.agent("guest-get-fsinfo")
        addresses = self._disk_addresses()
        with agent.reading(self.name, "guest-get-fsinfo"):
            return [
                Filesystem(str(row["mountpoint"]), str(row["name"]), str(row["type"]), addresses.targets_of(row["disk"])) for row in rows
            ]

    def disks_in_guest(self) -> dict[str, str]:
        """By the name in the guest's kernel: libvirt's target of each whole disk that is a disk of the domain."""
        rows = self.agent("guest-get-disks")
        addresses = self._disk_addresses()
        with agent.reading(self.name, "guest-get-disks"):
            whole = [row for row in rows if not row["partition"] and row.get("address") is not None]
            targets = {str(row["name"]).removeprefix("/dev/"): addresses.target_of(row["address"]) for row in whole}
        return {name: target for name, target in targets.items() if target is not None}

    def _disk_addresses(self) -> DiskAddresses:
        return DiskAddresses(self._libvirt("virDomainGetXMLDesc", self._handle.xml))

    def freeze(self, mountpoints: Sequence[str] | None, timeout_ms: int) -> int:
        """Freeze all filesystems, or only those of `mountpoints`. Returns the agent's count.

        Sent as an agent command and not by virDomainFSFreeze, because only an agent command has a time limit that no other client of the
        domain shares (F§4.1). After AgentNotAnswering the guest may still freeze later.
        """
        if mountpoints is None:
            return self._count("guest-fsfreeze-freeze", None, timeout_ms)
        return self._count("guest-fsfreeze-freeze-list", {"mountpoints": list(mountpoints)}, timeout_ms)

    def thaw(self, timeout_ms: int) -> int:
        """Thaw everything. Returns the agent's count. After AgentCommandFailed, which is an answer, the guest is thawed, too (F§0.2)."""
        return self._count("guest-fsfreeze-thaw", None, timeout_ms)

    def _count(self, command: str, arguments: dict[str, Any] | None, timeout_ms: int) -> int:
        answer = self.agent(command, arguments, timeout_ms=timeout_ms)
        with agent.reading(self.name, command):
            if not isinstance(answer, int):
                raise TypeError(f"{answer!r} is not a count")
            return answer

    def execute(self, path: str, arguments: Sequence[str] = (), *, budget_ms: int) -> ExecResult:
        """Run a program in the guest and wait for its end. Raises AgentNotAnswering if the program does not end within the budget."""
        return self.begin(path, arguments).result(budget_ms)

    def begin(self, path: str, arguments: Sequence[str] = ()) -> Running:
        """Begin a program in the guest. The program runs while the caller does something else."""
        return program.begin(self, path, arguments)

    # --- the point in time ----------------------------------------------------------------------

    def prepare_snapshot(self, overlays: dict[str, str]) -> Callable[[], None]:
        """Prepare the snapshot before the freeze. The returned call only asks libvirt.

        `overlays`: by target, the path of an overlay that exists already. Flags: all disks move or none (ATOMIC), libvirt makes no file
        (REUSE_EXT) and keeps no metadata (NO_METADATA). QUIESCE is never used (F§0.9). The call raises LibvirtCallFailed or
        LibvirtUnavailable; look at `sources` then.
        """
        document = snapshot_xml(overlays, [disk.target for disk in self.disks()])
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        )
        return lambda: retry_node_names(lambda: self._libvirt(SNAPSHOT_CALL, lambda: self._handle.snapshot_create(document, flags)))
